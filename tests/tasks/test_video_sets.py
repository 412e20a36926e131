"""The video sets by their own lists: what is read, one clear line for each mistake, and whole runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import few_videos
import pytest
import torch
from clips import write_colour

import peftmark
from peftmark.errors import PeftmarkError
from peftmark.tasks import Task, make_task
from peftmark.tasks.video import sets

COLOURS = [(220, 30, 30), (30, 30, 220)]


def write_ucf101(data: Path) -> Path:
    """Two classes; groups 8, 9 and 24 in training, 1 in the test."""
    root = data / "ucf101"
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("1 ApplyEyeMakeup\n2 YoYo\n")
    train, test = [], []
    for label, name in enumerate(("ApplyEyeMakeup", "YoYo")):
        (root / "UCF-101" / name).mkdir(parents=True)
        for group in (1, 8, 9, 24):
            path = f"{name}/v_{name}_g{group:02}_c01.avi"
            write_colour(root / "UCF-101" / path, COLOURS[label])
            (test if group == 1 else train).append(path if group == 1 else f"{path} {label + 1}")
    for number in (1, 2):
        (lists / f"trainlist0{number}.txt").write_text("\n".join(train) + "\n")
        (lists / f"testlist0{number}.txt").write_text("\n".join(test[number - 1 :]) + "\n")
    return root


def write_hmdb51(data: Path) -> Path:
    """Two classes of four videos: two to train on, one to test, one unused."""
    root = data / "hmdb51"
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    for label, name in enumerate(("brush_hair", "cartwheel")):
        (root / "videos" / name).mkdir(parents=True)
        lines = []
        for index, use in enumerate((1, 1, 2, 0)):
            file = f"April_09_{name}_u_nm_np1_ba_goo_{index}.avi"
            write_colour(root / "videos" / name / file, COLOURS[label])
            lines.append(f"{file} {use} \n")
        (lists / f"{name}_test_split1.txt").write_text("".join(lines))
    return root


def write_ssv2(data: Path) -> Path:
    """Two classes, numbered against the alphabet; templates with brackets."""
    root = data / "ssv2"
    (root / "20bn-something-something-v2").mkdir(parents=True)
    (root / "labels").mkdir()
    labels = {"Holding something next to something": "1", "Tearing something": "0"}
    templates = ["Tearing [something]", "Holding [something] next to [something]"]
    (root / "labels" / "labels.json").write_text(json.dumps(labels))
    number = 78687
    for split, count in (("train", 2), ("validation", 1)):
        rows = []
        for label, template in enumerate(templates * count):
            number += 1
            write_colour(
                root / "20bn-something-something-v2" / f"{number}.webm", COLOURS[label % 2], codec="libvpx-vp9"
            )
            rows.append({"id": str(number), "label": "tearing paper", "template": template, "placeholders": ["paper"]})
        (root / "labels" / f"{split}.json").write_text(json.dumps(rows))
    return root


def write_k400(data: Path, mmaction: bool = False) -> Path:
    """Two classes of three training videos; one's name has a space."""
    root = data / "kinetics400"
    for split, count in (("train", 3), ("val", 1)):
        lines = []
        for label, name in enumerate(("abseiling", "air drumming")):
            (root / f"videos_{split}" / name).mkdir(parents=True)
            for index in range(count):
                path = f"{name}/{index} x.mp4"
                write_colour(root / f"videos_{split}" / path, COLOURS[label], frames=20)
                lines.append(f"{path if mmaction else f'videos_{split}/{path}'} {label}\n")
        (root / (f"kinetics400_{split}_list_videos.txt" if mmaction else f"{split}.txt")).write_text("".join(lines))
    return root


WRITERS = {"ucf101": write_ucf101, "hmdb51": write_hmdb51, "ssv2": write_ssv2, "k400": write_k400}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFTMARK_DATA", str(tmp_path / "data"))
    for cls in few_videos.SETS:
        monkeypatch.setattr(cls, "classes", 2)
        monkeypatch.setattr(cls, "size", 32)
    return tmp_path / "data"


def names(examples: object) -> list[str]:
    return [Path(example.path).stem for example in examples]  # type: ignore[attr-defined]


def test_ucf101_holds_out_whole_groups(data: Path) -> None:
    write_ucf101(data)
    lists = make_task("video/ucf101").lists()
    assert lists.class_names == ("ApplyEyeMakeup", "YoYo")
    groups = {split: {re.findall(r"_g(\d+)_", name)[0] for name in names(e)} for split, e in lists.splits().items()}
    assert groups == {"train": {"08", "09"}, "validation": {"24"}, "test": {"01"}}
    assert [example.label for example in lists.test] == [0, 1]
    assert len(make_task("video/ucf101-split2").lists().test) == 1


def test_hmdb51_s_uses(data: Path) -> None:
    write_hmdb51(data)
    lists = make_task("video/hmdb51").lists()
    assert lists.class_names == ("brush_hair", "cartwheel")
    assert [name[-1] for name in names(lists.test)] == ["2", "2"]
    assert sorted(name[-1] for name in names([*lists.train, *lists.validation])) == ["0", "0", "1", "1"]
    assert [example.label for example in lists.train] == [example.label for example in lists.validation] == [0, 1]


def test_ssv2_s_classes_are_templates_without_brackets(data: Path) -> None:
    root = write_ssv2(data)
    lists = make_task("video/ssv2").lists()
    assert lists.class_names == ("Tearing something", "Holding something next to something")
    assert [example.label for example in lists.test] == [0, 1]
    for split in ("train", "validation", "labels"):
        (root / "labels" / f"{split}.json").rename(root / "labels" / f"something-something-v2-{split}.json")
    assert make_task("video/ssv2").lists().splits() != {}


@pytest.mark.parametrize("mmaction", [False, True])
def test_k400_by_both_kinds_of_lists(data: Path, mmaction: bool) -> None:
    root = write_k400(data, mmaction)
    lists = make_task("video/k400").lists()
    assert lists.class_names == ("0", "1")
    assert [example.path for example in lists.test] == [
        "videos_val/abseiling/0 x.mp4",
        "videos_val/air drumming/0 x.mp4",
    ]
    assert [len(examples) for examples in lists.splits().values()] == [4, 2, 2]
    (root / "label_map_k400.txt").write_text("abseiling\nair drumming\n")
    task = make_task("video/k400")
    assert task.lists().class_names == ("abseiling", "air drumming")
    test = task.load().tests["test"]
    assert test.inputs.shape == (2, 3, 8, 3, 32, 32)  # three clips of the middle


def test_training_and_validation_lie_in_one_file(data: Path) -> None:
    """So that a final training on both copies nothing."""
    write_ucf101(data)
    loaded = make_task("video/ucf101").load()
    both = loaded.train_and_validation()
    assert both.inputs.data_ptr() == loaded.train.inputs.data_ptr()
    assert (len(loaded.train), len(loaded.validation), len(both)) == (4, 2, 6)
    assert torch.equal(both.inputs[4:], loaded.validation.inputs)
    assert both.targets.tolist() == [0, 0, 1, 1, 0, 1]


CARTWHEEL = "testTrainMulti_7030_splits/cartwheel_test_split1.txt"
MISTAKES = [
    (
        "ucf101",
        "ucfTrainTestlist/classInd.txt",
        "0 ApplyEyeMakeup\n1 YoYo\n",
        "line 1: '0 ApplyEyeMakeup'; here",
    ),
    ("ucf101", "ucfTrainTestlist/classInd.txt", "1 ApplyEyeMakeup\n", "line 4: there is no class 'YoYo' in classInd"),
    ("ucf101", "ucfTrainTestlist/testlist01.txt", "YoYo/x.avi\n", "line 1: there is no video .*UCF-101/YoYo/x.avi"),
    ("ucf101", "ucfTrainTestlist/testlist01.txt", "YoYo/../../x.avi\n", "line 1: 'YoYo/../../x.avi' leaves the folder"),
    ("ucf101", "ucfTrainTestlist/trainlist01.txt", "YoYo/v_YoYo_g08_c01.avi 1\n", "line 1: YoYo is class 2, not 1"),
    ("ucf101", "ucfTrainTestlist/testlist01.txt", "YoYo/v_YoYo_g08_c01.avi\n", "stands in .*trainlist01.txt, line 4"),
    ("ucf101", "ucfTrainTestlist/trainlist01.txt", "YoYo/v_YoYo_g08_c01.avi 2\n", "there are no videos for validation"),
    ("ucf101", "ucfTrainTestlist/testlist01.txt", None, "testlist01.txt: no such file"),
    ("hmdb51", CARTWHEEL, None, "has 1 classes; it should have 2"),
    (
        "hmdb51",
        "testTrainMulti_7030_splits/cartwheel_test_split1.txt",
        "a.avi 3\n",
        "line 1: 'a.avi 3' does not end in 1",
    ),
    (
        "hmdb51",
        "testTrainMulti_7030_splits/cartwheel_test_split1.txt",
        "a.avi 1\n",
        "line 1: there is no video .*a.avi",
    ),
    ("ssv2", "labels/labels.json", '{"Tearing something": "0", "Other": "2"}', "does not number its 2 classes from 0"),
    (
        "ssv2",
        "labels/labels.json",
        '{"Tearing something": "0", "Other": "1"}',
        r"\[1\]: there is no class 'Hold",
    ),
    ("ssv2", "labels/labels.json", "[]", "labels.json holds no JSON object"),
    ("ssv2", "labels/train.json", "{", "train.json cannot be read as JSON"),
    ("ssv2", "labels/train.json", '[{"id": "1"}]', r"train.json, \[0\] has no id and template"),
    (
        "ssv2",
        "labels/train.json",
        '[{"id": "../1", "template": "Tearing [something]"}]',
        r"\[0\]: .* leaves the folder",
    ),
    ("ssv2", "labels/validation.json", None, "has no validation.json or something-something-v2-validation.json"),
    (
        "k400",
        "train.txt",
        "videos_train/abseiling/0 x.mp4 2\n",
        "train.txt, line 1: there is no class 2; the last",
    ),
    ("k400", "train.txt", "videos_train/abseiling/9.mp4 0\n", "train.txt, line 1: there is no video"),
    ("k400", "classes.txt", "abseiling\n", "has 1 classes; it should have 2"),
]


@pytest.mark.parametrize(("name", "file", "text", "message"), MISTAKES)
def test_a_mistake_is_one_clear_line(data: Path, name: str, file: str, text: str | None, message: str) -> None:
    root = WRITERS[name](data)
    if text is None:
        (root / file).unlink()
    else:
        (root / file).write_text(text)
    with pytest.raises(PeftmarkError, match=message) as error:
        make_task(f"video/{name}").split_sha256()
    assert str(error.value).startswith(f"task video/{name}: ")
    assert "\n" not in str(error.value)


def test_sets_that_are_not_there(data: Path) -> None:
    data.mkdir()
    for name in WRITERS:
        with pytest.raises(PeftmarkError, match=rf"task video/{name}: there is no folder .*put the data set there"):
            make_task(f"video/{name}").split_sha256()
    (data / "ucf101").mkdir()
    with pytest.raises(PeftmarkError, match=r"there is no folder .*ucfTrainTestlist or .*annotations"):
        make_task("video/ucf101").split_sha256()


def test_a_video_that_cannot_be_decoded(data: Path) -> None:
    root = write_hmdb51(data)
    (root / "videos" / "cartwheel" / "April_09_cartwheel_u_nm_np1_ba_goo_2.avi").write_bytes(b"no video")
    task: Task = make_task("video/hmdb51")
    task.split_sha256()
    with pytest.raises(PeftmarkError, match=r"video/hmdb51, test: 1 image \(.*goo_2\.avi.*cannot be read") as error:
        task.load()
    assert "\n" not in str(error.value)


def test_every_reader_reaches_a_record_by_the_command_line(
    data: Path, tmp_path: Path, command: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = []
    for name, write in WRITERS.items():
        write(data)
        arguments += ["--task", f"video/{name}"]
    done = command(
        "run", *arguments, "--method", "frame_mean", "--backbone", "embedded/vit", "--jobs", 1,
        "--set", "protocol.epochs=1", "--import", few_videos.__file__,
    )  # fmt: skip
    assert done.code == 0, done.err
    frame = peftmark.load_results(tmp_path / "runs")
    assert sorted(frame["spec.task.name"]) == sorted(f"video/{name}" for name in WRITERS)
    assert (frame["status"] == "ok").all()


def test_estimates_count_frames() -> None:
    assert make_task("video/ssv2").expected_sizes() == ((168_913 - 8_446) * 8, 8_446 * 8, 24_777 * 3 * 8)
    assert issubclass(sets.UCF101Split2, sets.UCF101) and sets.UCF101Split2.split == 2
