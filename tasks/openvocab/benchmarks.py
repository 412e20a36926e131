"""The four open-vocabulary benchmarks on images from disk."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from ...errors import PeftmarkError
from ...registry import TASKS
from ...results import canonical_json
from ..headlines import harmonic_mean, target_mean
from ..images import ImageList, decoded
from ..task import Progress, Split, Task, TaskData, silent
from .draws import SHOTS, VALIDATION_SHOTS, base_and_new, draw
from .sets import SETS, VARIANTS, find_set, one_of, read_set, templates_of

ALL = "all"
TARGETS = [name for name in SETS if name != "imagenet"]


class OpenVocabulary(Task):
    """Trains on a few images of each class of one set, drawn by the run's seed as in CoOp (see `draws.draw`).

    Images become 224 x 224 pixels as CLIP's own do: the shorter side bicubically, then the middle.
    """

    preprocessing: ClassVar[str] = "crop-bicubic-224"
    drawn_by_seed: ClassVar[bool] = True
    source: str
    """The set that is trained on."""
    shots: int

    @classmethod
    @abstractmethod
    def members(cls) -> list[str]:
        """The names of the tasks."""

    @abstractmethod
    def lists(self) -> tuple[ImageList, ImageList, dict[str, ImageList]]:
        """Training images, validation images, and the tests'."""

    def __init__(self, name: str) -> None:
        super().__init__(one_of(name, name, self.members()))
        self.dataset = name.partition("/")[2]

    def drawn(self) -> tuple[ImageList, ImageList]:
        return draw(read_set(self.source).splits, self.shots, self.draw)

    def manifest(self) -> dict[str, Any]:
        """The images of training and validation with their labels, digests of the tests', and the prompts."""
        train, validation, tests = self.lists()
        return {
            "task": self.name,
            "draw": self.draw,
            "preprocessing": self.preprocessing,
            "templates": self.templates,
            "class_names": train.class_names,
            "train": train.content(),
            "validation": validation.content(),
            "tests": {
                name: {"images": len(images), "class_names": images.class_names, "sha256": _sha256(images.content())}
                for name, images in tests.items()
            },
        }

    def split_sha256(self) -> str:
        """Of the manifest. Raises PeftmarkError where an image is missing, or a list is wrong; it names the task."""
        with self._named():
            return _sha256(self.manifest())

    def expected_sizes(self) -> tuple[int, int, int]:
        classes = self.trained_classes()
        return classes * self.shots, classes * min(self.shots, VALIDATION_SHOTS), self.expected_test_size()

    def trained_classes(self) -> int:
        return SETS[self.source].classes

    def expected_test_size(self) -> int:
        return SETS[self.source].test_size

    def prepare(self, progress: Progress) -> TaskData:
        return self._load(progress)

    def load(self) -> TaskData:
        return self._load(silent)

    def _load(self, progress: Progress) -> TaskData:
        with self._named():
            train, validation, tests = self.lists()
            return TaskData(
                self.decoded(train, progress), self.decoded(validation, progress), self.decoded_tests(tests, progress)
            )

    def decoded(self, images: ImageList, progress: Progress) -> Split:
        pixels = decoded(images, self.preprocessing, progress)
        return Split(pixels.images, images.label_tensor(), images.class_names, pixels.digests)

    def decoded_tests(self, tests: Mapping[str, ImageList], progress: Progress) -> dict[str, Split]:
        return {name: self.decoded(images, progress) for name, images in tests.items()}

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except PeftmarkError as error:
            raise PeftmarkError(f"task {self.name}: {error}") from error


@TASKS.register("fewshot/*", track="openvocab", group="few-shot")
class FewShot(OpenVocabulary):
    """A classification task after 1, 2, 4, 8 or 16 images a class: ``fewshot/<data set>-<k>shot``.

    CoOp's eleven sets (Zhou et al. 2022, arXiv:2109.01134) with its split files. The test is the whole test split of
    the set; ImageNet's is its validation images.
    """

    @classmethod
    def members(cls) -> list[str]:
        return [f"fewshot/{name}-{shots}shot" for name in SETS for shots in SHOTS]

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.source, _, shots = self.dataset.rpartition("-")
        self.shots = int(shots.removesuffix("shot"))
        self.templates = templates_of(self.source)

    def lists(self) -> tuple[ImageList, ImageList, dict[str, ImageList]]:
        return *self.drawn(), {"test": read_set(self.source).splits["test"]}


@TASKS.register("base2new/*", track="openvocab", group="base-to-new")
class BaseToNew(OpenVocabulary):
    """Sixteen images of each base class, then a test on these and one on the new classes: ``base2new/<data set>``.

    Classes in the order of their labels: the first half, rounded up, are base classes, the others new ones, numbered
    from 0 (Zhou et al. 2022, arXiv:2203.05557, section 4.1). Each test chooses among its own classes. The figure is the
    harmonic mean of both.
    """

    metric = "harmonic_mean"
    shots = 16

    @classmethod
    def members(cls) -> list[str]:
        return [f"base2new/{name}" for name in SETS]

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.source = self.dataset
        self.templates = templates_of(self.source)

    def lists(self) -> tuple[ImageList, ImageList, dict[str, ImageList]]:
        train, validation = (base_and_new(images)[0] for images in self.drawn())
        base, new = base_and_new(read_set(self.source).splits["test"])
        return train, validation, {"base": base, "new": new}

    def trained_classes(self) -> int:
        return -(-super().trained_classes() // 2)

    def decoded_tests(self, tests: Mapping[str, ImageList], progress: Progress) -> dict[str, Split]:
        """Parts of the set's whole test, which few-shot tasks have too: its pixels are kept once."""
        whole, splits, start = self.decoded(read_set(self.source).splits["test"], progress), {}, 0
        assert whole.digests is not None
        for name, images in tests.items():
            rows = slice(start, start + len(images))
            splits[name] = Split(whole.inputs[rows], images.label_tensor(), images.class_names, whole.digests[rows])
            start = rows.stop
        return splits

    def headline(self, tests: Mapping[str, float]) -> float:
        return harmonic_mean(tests)


class Transfer(OpenVocabulary):
    """Sixteen images of each class of ImageNet, then a test on other sets.

    Class attributes:
        prefix: of the tasks' names. targets: the sets that ``<prefix>/all`` tests on, after one training, beside
            ImageNet itself (``source``, which is not in the figure).
    """

    metric = "target_mean"
    source = "imagenet"
    shots = 16
    prefix: ClassVar[str]
    targets: ClassVar[list[str]]

    @classmethod
    def members(cls) -> list[str]:
        return [f"{cls.prefix}/{name}" for name in (*cls.targets, ALL)]

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.templates = templates_of(self.source)

    def lists(self) -> tuple[ImageList, ImageList, dict[str, ImageList]]:
        names = self.targets if self.dataset == ALL else [self.dataset]
        tests = {name: read_set(name).splits["test"] for name in names}
        if self.dataset == ALL:
            tests["source"] = read_set(self.source).splits["test"]
        return *self.drawn(), tests

    def expected_test_size(self) -> int:
        if self.dataset != ALL:
            return find_set(self.dataset).test_size
        return sum(find_set(name).test_size for name in (*self.targets, self.source))

    def headline(self, tests: Mapping[str, float]) -> float:
        return target_mean(tests)


@TASKS.register("cross_dataset/*", track="openvocab", group="cross-dataset")
class CrossDataset(Transfer):
    """Sixteen images of each class of ImageNet, then a test on another set's classes: ``cross_dataset/<data set>``.

    ``cross_dataset/all`` trains once and tests on all ten other sets of CoOp's (Zhou et al. 2022, arXiv:2203.05557,
    section 4.2), whose mean is the figure, and on ImageNet (``source``). The prompts are ImageNet's in every test.
    """

    prefix = "cross_dataset"
    targets = TARGETS


@TASKS.register("domain_generalization/*", track="openvocab", group="domain generalization")
class DomainGeneralization(Transfer):
    """Sixteen images of each class of ImageNet, then a test on other pictures of these classes.

    ``domain_generalization/imagenet_v2``, ``…/imagenet_sketch``, ``…/imagenet_a`` and ``…/imagenet_r`` (200 of the
    classes); ``domain_generalization/all`` trains once and tests on these four, whose mean is the figure, and on
    ImageNet (``source``).
    """

    prefix = "domain_generalization"
    targets = list(VARIANTS)


def _sha256(content: object) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()
