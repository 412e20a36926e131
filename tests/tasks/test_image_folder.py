"""A user's own folder of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pictures import write_picture

import peftmark
from peftmark.errors import PeftmarkError
from peftmark.tasks.image_folder import ImageFolder
from peftmark.tasks.images import Lists

NAMES = ("ant", "bee", "cow")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "photos"


def write(folder: Path, n: int = 10, seed: int = 0, names: tuple[str, ...] = NAMES) -> None:
    for label, name in enumerate(names):
        for index in range(n):
            write_picture(folder / name / f"{index} of {n}.jpg", label, seed + 100 * label + index, classes=3)


def lists(root: Path) -> Lists:
    return ImageFolder(f"folder/{root}").lists()


def sizes(root: Path) -> list[int]:
    return [len(images) for images in lists(root)]


def test_a_folder_of_classes_is_split_by_names(root: Path) -> None:
    write(root)
    assert sizes(root) == [18, 6, 6]
    found = lists(root)
    every = [path for images in found for path in images.paths]
    assert sorted(every) == sorted(f"{name}/{i} of 10.jpg" for name in NAMES for i in range(10))
    assert found.train.class_names == NAMES
    assert all(NAMES[label] == path.split("/")[0] for path, label in found.train.content())
    # written down: another split on another machine, or in another version, would be another benchmark
    assert found.tests["test"].paths[:2] == TEST_OF_ANTS
    assert found.validation.paths[:2] == VALIDATION_OF_ANTS


TEST_OF_ANTS = ("ant/0 of 10.jpg", "ant/4 of 10.jpg")
VALIDATION_OF_ANTS = ("ant/7 of 10.jpg", "ant/8 of 10.jpg")


def test_a_new_image_moves_few(root: Path) -> None:
    write(root, n=30)
    before = set(lists(root).tests["test"].paths)
    write_picture(root / "ant" / "new.jpg", 0, 7)
    assert len(before - set(lists(root).tests["test"].paths)) <= 1


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_splits_that_are_there(root: Path, val: str) -> None:
    for seed, (split, n) in enumerate((("train", 5), (val, 3), ("test", 4))):
        write(root / split, n, 1000 * seed)
    found = lists(root)
    assert [len(images) for images in found] == [15, 9, 12]
    assert all(images.paths[0].startswith(split) for images, split in zip(found, ("train", val, "test"), strict=True))


@pytest.mark.parametrize("other", ["test", "val"])
def test_a_split_that_is_missing(root: Path, other: str) -> None:
    write(root / "train", 10)
    write(root / other, 4, 1000)
    found = lists(root)
    assert [len(images) for images in found] == [24, 6, 12]
    assert found.validation.paths[0].startswith("train/")
    assert found.tests["test"].paths[0].startswith(f"{other}/")


def test_what_is_no_image_is_passed_over(root: Path) -> None:
    write(root)
    before = lists(root).train.content()
    for path in ("ant/notes.txt", "ant/.hidden.jpg", ".thumbs/1.jpg", "readme.md", "empty/no.txt"):
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text("")
    assert lists(root).train.content() == before


DRAWN = (
    "the test split was drawn: 20% of each class's images, by their names",
    "the validation split was drawn: 20% of each class's images, by their names",
)


def test_what_is_left_out_is_said(root: Path) -> None:
    write(root)
    assert lists(root).warnings == DRAWN
    for path in (
        "ant/notes.txt",
        "bee/deep/x.HEIC",
        "loose.png",
        "readme.md",
        "dog/none.txt",
        ".hidden/1.jpg",
        "eel/.x",
    ):
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text("")
    for index in range(4):
        (root / "cow" / f"gone {index}.jpg").symlink_to(root / "nowhere" / f"{index}.jpg")
    (root / "fox").symlink_to(root / "fox")
    (root / "cow" / "again").symlink_to(root / "cow")
    found = lists(root)
    assert [len(images) for images in found] == [18, 6, 6]
    assert found.warnings == (
        *DRAWN,
        "left out, for their endings: 3 files (ant/notes.txt, bee/deep/x.HEIC, dog/none.txt)",
        "left out, in no class's folder: 1 image (loose.png)",
        "left out, leading to no file: 5 links (cow/gone 0.jpg, cow/gone 1.jpg, cow/gone 2.jpg, …)",
        "left out, since links to folders are not followed: 1 link (cow/again)",
        "left out, without an image: 2 class folders (dog, eel)",
    )


def test_what_splits_are_is_said(root: Path) -> None:
    write(root / "train")
    write(root / "valid", 4, 1000)
    (root / "train" / "ant" / "gone.png").symlink_to(root / "nowhere.png")
    drawn = "the validation split was drawn: 20% of each class's training images, by their names"
    broken = "left out, leading to no file: 1 link (train/ant/gone.png)"
    stand_in = "the test split is the folder valid, since there is none called test"
    assert lists(root).warnings == (stand_in, drawn, broken)
    write(root / "test", 4, 2000)
    assert lists(root).warnings == (broken,)
    (root / "extra").mkdir()
    (root / "validation").mkdir()
    assert lists(root).warnings == ("left out, beside the splits: 2 folders (extra, validation)", broken)


def test_a_class_may_have_sub_folders_and_be_called_train(root: Path) -> None:
    write(root, names=("train", "bus"))
    write_picture(root / "bus" / "red" / "1.PNG", 1, 1)
    assert lists(root).train.class_names == ("bus", "train")
    assert sum(sizes(root)) == 21


def test_the_split_is_the_same_elsewhere(root: Path, tmp_path: Path) -> None:
    write(root)
    before = ImageFolder(f"folder/{root}").split_sha256()
    assert ImageFolder(f"folder/{root.rename(tmp_path / 'moved')}").split_sha256() == before


def test_mistakes(root: Path) -> None:
    def refuse(message: str) -> None:
        with pytest.raises(PeftmarkError, match=message) as error:
            ImageFolder(f"folder/{root}").split_sha256()
        assert "\n" not in str(error.value)

    refuse("there is no folder .*photos")
    root.mkdir()
    refuse("photos has 0 sub-folders with images; a task needs two classes")
    write(root, names=("ant",))
    refuse("photos has 1 sub-folders with images")
    write(root, 2, names=("bee",))
    refuse("class 'bee' of .*photos has 2 images: too few")
    write(root / "train")
    write(root / "test", names=("ant", "bee", "dog"))
    refuse("train and test have not the same classes: 'cow' is in one alone")


def test_a_whole_run_reaches_a_record(root: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    write(root)
    (root / "bee" / "gone.png").symlink_to(root / "nowhere.png")
    arguments = ("--method", "linear", "--backbone", "embedded/vit", "--task", f"folder/{root}", "--jobs", 1)
    done = command("run", *arguments, "--protocol", "image-v1", "--set", "protocol.learning_rate=0.01")
    assert done.code == 0, done.err
    frame = peftmark.load_results(tmp_path / "runs")
    assert frame["status"].tolist() == ["ok"]
    assert frame["quality.test"][0] > 60
    assert frame["env.data_warnings"][0] == [*DRAWN, "left out, leading to no file: 1 link (bee/gone.png)"]
    (root / "ant" / "0 of 10.jpg").write_bytes(b"")
    failed = command("run", *arguments, "--set", "protocol.epochs=1")
    assert failed.code == 2
    assert "1 image (ant/0 of 10.jpg: " in failed.one_line()
