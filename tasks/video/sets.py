"""The video data sets by their own lists, below ``$PEFTMARK_DATA``."""

from __future__ import annotations

import hashlib
import json
import re
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from ...errors import PeftmarkError
from ...registry import TASKS
from ...results.files import read_regular
from ..images import LIST_BYTES, check_inside, dataset_folder, numbered_lines
from .clips import VideoLists, VideoTask
from .lists import Example, read_classes, read_list

Found = tuple[list[Example], list[Example]]
"""Training and test videos."""


class VideoSet(VideoTask):
    """A data set whose test is the published one and whose validation is held out of training.

    Class attributes:
        folders: names that the data set's folder may have. classes: how many it has.
        published: its training and test videos, for estimates.
        held_out: the share of each class's training videos that is for validation, chosen by sha256 of their paths.
    """

    folders: ClassVar[tuple[str, ...]]
    classes: ClassVar[int]
    published: ClassVar[tuple[int, int]]
    held_out: ClassVar[float] = 0.05

    def expected_sizes(self) -> tuple[int, int, int]:
        """In frames, those of all views of a test video."""
        train, test = self.published
        held_out = round(self.held_out * train)
        sizes = (train - held_out, held_out, test * self.test_clips * self.test_crops)
        return sizes[0] * self.num_frames, sizes[1] * self.num_frames, sizes[2] * self.num_frames

    @abstractmethod
    def read(self, root: Path) -> tuple[list[Example], list[Example], tuple[str, ...]]:
        """Training and test videos of the folder, and class names. Raises PeftmarkError."""

    def lists(self) -> VideoLists:
        try:
            return self._checked(dataset_folder(*self.folders))
        except PeftmarkError as error:
            raise PeftmarkError(f"task {self.name}: {error}") from error

    def _checked(self, root: Path) -> VideoLists:
        train, test, class_names = self.read(root)
        if len(class_names) != self.classes:
            raise PeftmarkError(f"{root} has {len(class_names)} classes; it should have {self.classes}: get it again")
        train, validation = self.hold_out(train)
        lists = VideoLists(root, train, validation, test, class_names).check()
        for name, examples in lists.splits().items():
            if not examples:
                raise PeftmarkError(f"{root}: there are no videos for {name}: get the lists again")
        _check_there(root, [example for examples in lists.splits().values() for example in examples])
        return lists

    def hold_out(self, train: Sequence[Example]) -> Found:
        by_class: defaultdict[int, list[Example]] = defaultdict(list)
        for example in sorted(train, key=lambda example: hashlib.sha256(example.path.encode()).digest()):
            by_class[example.label].append(example)
        held = {e.path for videos in by_class.values() for e in videos[: _share(self.held_out, len(videos))]}
        return [e for e in train if e.path not in held], [e for e in train if e.path in held]


class UCF101(VideoSet):
    """UCF101 (Soomro et al. 2012, arXiv:1212.0402): videos in ``UCF-101/`` or ``videos/``, a folder a class.

    Lists in ``ucfTrainTestlist/`` or ``annotations/``: ``classInd.txt`` (``1 ApplyEyeMakeup``, from 1),
    ``trainlist01.txt`` (``ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1``) and ``testlist01.txt`` (paths alone). Videos
    of a group (``g08``) are cut from one, so whole groups are held out for validation: 24 and 25, which are in no test.

    Class attributes:
        split: 1, 2 or 3 of the published ones.
    """

    folders = ("ucf101", "UCF101", "UCF-101")
    classes = 101
    published = (9_537, 3_783)
    split: ClassVar[int] = 1
    held_out_groups: ClassVar[tuple[int, ...]] = (24, 25)

    def read(self, root: Path) -> tuple[list[Example], list[Example], tuple[str, ...]]:
        lists = _below(root, "ucfTrainTestlist", "annotations")
        numbers: dict[str, int] = {}
        for where, line in numbered_lines(lists / "classInd.txt", "a line is `1 ApplyEyeMakeup`"):
            number, _, name = line.partition(" ")
            if number != str(len(numbers) + 1) or not name or name in numbers:
                raise PeftmarkError(f"{where}: {line!r}; here stands class {len(numbers) + 1}, with a name of its own")
            numbers[name] = len(numbers)
        videos = _below(root, "UCF-101", "videos").relative_to(root)

        def read(name: str) -> list[Example]:
            examples = []
            for where, line in numbered_lines(lists / name, "it is in UCF101TrainTestSplits-RecognitionTask.zip"):
                path, *number = line.rsplit(" ", 1) if line[-1].isdecimal() else [line]
                of_class = PurePosixPath(path).parts[0]
                if of_class not in numbers:
                    raise PeftmarkError(f"{where}: there is no class {of_class!r} in classInd.txt")
                if number and number[0] != str(numbers[of_class] + 1):
                    raise PeftmarkError(f"{where}: {of_class} is class {numbers[of_class] + 1}, not {number[0]}")
                examples.append(Example(str(videos / check_inside(path, where)), None, numbers[of_class], where))
            return examples

        return read(f"trainlist{self.split:02}.txt"), read(f"testlist{self.split:02}.txt"), tuple(numbers)

    def hold_out(self, train: Sequence[Example]) -> Found:
        def is_held_out(example: Example) -> bool:
            group = re.search(r"_g(\d+)_c\d+\.", example.path)
            return group is not None and int(group[1]) in self.held_out_groups

        return [e for e in train if not is_held_out(e)], [e for e in train if is_held_out(e)]


class HMDB51(VideoSet):
    """HMDB51 (Kuehne et al. 2011): videos in ``videos/``, ``hmdb51_org/`` or the folder itself, a folder a class.

    Lists in ``testTrainMulti_7030_splits/`` or ``annotations/``: ``<class>_test_split1.txt``, a line is a file and 1
    (training), 2 (test) or 0 (not in this split). Classes are numbered in the order of their names.

    Class attributes:
        split: 1, 2 or 3 of the published ones.
    """

    folders = ("hmdb51", "HMDB51")
    classes = 51
    published = (3_570, 1_530)
    held_out = 0.1
    split: ClassVar[int] = 1

    def read(self, root: Path) -> tuple[list[Example], list[Example], tuple[str, ...]]:
        lists = _below(root, "testTrainMulti_7030_splits", "annotations")
        suffix = f"_test_split{self.split}.txt"
        names = sorted(file.name.removesuffix(suffix) for file in lists.glob(f"*{suffix}"))
        videos = _below(root, "videos", "hmdb51_org", ".").relative_to(root)
        found: dict[str, list[Example]] = {"0": [], "1": [], "2": []}
        for label, name in enumerate(names):
            for where, line in numbered_lines(lists / f"{name}{suffix}", "it is in test_train_splits.rar"):
                file, _, use = line.rpartition(" ")
                if use not in found or not file:
                    raise PeftmarkError(f"{where}: {line!r} does not end in 1 (training), 2 (test) or 0 (neither)")
                path = videos / name / check_inside(file.strip(), where)
                found[use].append(Example(str(path), None, label, where))
        return found["1"], found["2"], tuple(names)


@TASKS.register("video/ucf101", track="video", group="video")
class UCF101Split1(UCF101):
    """UCF101, its first split: 101 actions in 13,320 videos of the web."""


@TASKS.register("video/ucf101-split2", track="video", group="video")
class UCF101Split2(UCF101):
    """UCF101, its second split."""

    split = 2


@TASKS.register("video/ucf101-split3", track="video", group="video")
class UCF101Split3(UCF101):
    """UCF101, its third split."""

    split = 3


@TASKS.register("video/hmdb51", track="video", group="video")
class HMDB51Split1(HMDB51):
    """HMDB51, its first split: 51 actions, 70 training and 30 test videos of each."""


@TASKS.register("video/hmdb51-split2", track="video", group="video")
class HMDB51Split2(HMDB51):
    """HMDB51, its second split."""

    split = 2


@TASKS.register("video/hmdb51-split3", track="video", group="video")
class HMDB51Split3(HMDB51):
    """HMDB51, its third split."""

    split = 3


@TASKS.register("video/ssv2", track="video", group="video")
class SSv2(VideoSet):
    """Something-Something V2 (Goyal et al. 2017, arXiv:1706.04261): 174 ways of handling things.

    Videos ``20bn-something-something-v2/<id>.webm`` or ``videos/<id>.webm``; in ``labels/``, ``annotations/`` or the
    folder itself ``[something-something-v2-]{train,validation,labels}.json``. A video's class is its template without
    brackets, which ``labels.json`` numbers. The published validation videos are the test, as in all papers: the test's
    labels are not public.
    """

    folders = ("ssv2", "sthv2", "something-something-v2")
    classes = 174
    published = (168_913, 24_777)

    def read(self, root: Path) -> tuple[list[Example], list[Example], tuple[str, ...]]:
        lists = _below(root, "labels", "annotations", ".")
        videos = _below(root, "20bn-something-something-v2", "videos").relative_to(root)
        file, table = _json(lists, "labels", dict)
        numbers = {str(name): int(number) for name, number in table.items() if str(number).isdecimal()}
        names = sorted(numbers, key=lambda name: numbers[name])
        if [numbers[name] for name in names] != list(range(len(table))):
            raise PeftmarkError(f"{file} does not number its {len(table)} classes from 0, each once: get it again")

        def read(name: str) -> list[Example]:
            file, rows = _json(lists, name, list)
            examples = []
            for number, row in enumerate(rows):
                where = f"{file}, [{number}]"
                try:
                    video, template = str(row["id"]), str(row["template"]).replace("[", "").replace("]", "")
                except (KeyError, TypeError) as error:
                    raise PeftmarkError(f"{where} has no id and template: get the file again") from error
                if template not in numbers:
                    raise PeftmarkError(f"{where}: there is no class {template!r} in the labels")
                path = str(videos / check_inside(f"{video}.webm", where))
                examples.append(Example(path, None, numbers[template], where))
            return examples

        return read("train"), read("validation"), tuple(names)


@TASKS.register("video/k400", track="video", group="video")
class K400(VideoSet):
    """Kinetics-400 (Kay et al. 2017, arXiv:1705.06950): 400 actions.

    Lists with lines ``path label``: ``train.txt`` and ``val.txt`` with paths below the folder, or mmaction2's
    ``kinetics400_{train,val}_list_videos.txt`` with paths below ``videos_train/`` and ``videos_val/``; ``classes.txt``
    or ``label_map_k400.txt`` names the classes, if it is there. The published validation videos are the test. Clips are
    every 16th frame; a test averages three clips of the middle (ST-Adapter's views). Many videos are gone from the web:
    a list names what is there, and its hash is in the record.
    """

    folders = ("kinetics400", "k400", "Kinetics-400")
    classes = 400
    published = (240_436, 19_796)
    sampling = "dense"
    test_clips = 3
    test_crops = 1

    def read(self, root: Path) -> tuple[list[Example], list[Example], tuple[str, ...]]:
        train, test = (self._read(root, split) for split in ("train", "val"))
        names = read_classes(root, "classes.txt") or read_classes(root, "label_map_k400.txt")
        return train, test, names or tuple(str(number) for number in range(self.classes))

    def _read(self, root: Path, split: str) -> list[Example]:
        name, below = f"kinetics400_{split}_list_videos.txt", f"videos_{split}"
        if not (root / name).is_file():
            return read_list(root, f"{split}.txt")
        return [replace(e, path=f"{below}/{e.path}") for e in read_list(root / below, str(root / name))]


def _below(root: Path, *names: str) -> Path:
    """The first of some folders that is there. Raises PeftmarkError."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise PeftmarkError(f"there is no folder {' or '.join(str(root / name) for name in names)}")


def _json(folder: Path, name: str, kind: type) -> tuple[Path, Any]:
    """``folder/name.json``, or ``folder/something-something-v2-name.json``, and what is in it. Raises PeftmarkError."""
    names = (f"{name}.json", f"something-something-v2-{name}.json")
    file = next((folder / n for n in names if (folder / n).is_file()), None)
    if file is None:
        raise PeftmarkError(f"{folder} has no {' or '.join(names)}: put the labels of the data set there")
    try:
        table = json.loads(read_regular(file, LIST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise PeftmarkError(f"{file} cannot be read as JSON ({error}): get it again") from error
    if not isinstance(table, kind):
        raise PeftmarkError(f"{file} holds no JSON {'list' if kind is list else 'object'}: get it again")
    return file, table


def _share(share: float, of: int) -> int:
    """At least one, but never the last."""
    return min(max(round(share * of), 1), of - 1)


def _check_there(root: Path, examples: Sequence[Example]) -> None:
    missing = [example for example in examples if not (root / example.path).exists()]
    if missing:
        more = f", and {len(missing) - 1} more of {len(examples)} are missing" if len(missing) > 1 else ""
        raise PeftmarkError(f"{missing[0].where}: there is no video {root / missing[0].path}{more}")
