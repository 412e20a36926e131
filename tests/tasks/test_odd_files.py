"""What may lie where a list or an image is looked for, and names that cannot be recorded: one line each."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pictures import write_fgvc, write_picture, write_vtab

from peftmark.errors import PeftmarkError
from peftmark.tasks import make_task
from peftmark.tasks.vtab import Kitti


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What waits for ever ends the test."""

    def late(*_: Any) -> None:
        raise AssertionError("it waits")

    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PEFTMARK_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(Kitti, "sizes", (16, 8))
    monkeypatch.setattr(Kitti, "test_size", 12)
    (tmp_path / "data").mkdir()
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 10)
    yield tmp_path / "data"
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def said(name: str, what: str = "load") -> str:
    with pytest.raises(PeftmarkError) as error:
        getattr(make_task(name), what)()
    assert "\n" not in str(error.value)
    str(error.value).encode()  # it can be printed
    return str(error.value)


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def terabyte(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.touch()
    os.truncate(path, 2**40)


PLACES: list[tuple[Callable[[Path], None], str]] = [
    (fifo, "not a regular file"),
    (device, "not a regular file"),
    (terabyte, "1,099,511,627,776 bytes"),
]


@pytest.mark.parametrize(("place", "why"), PLACES)
def test_in_the_place_of_a_list(data: Path, place: Callable[[Path], None], why: str) -> None:
    root = write_vtab(data)
    place(root / "test.txt")
    for what in ("load", "split_sha256"):
        assert f"{root / 'test.txt'} cannot be read as text: " in said("vtab/kitti", what)
        assert why in said("vtab/kitti", what)


@pytest.mark.parametrize(("place", "why"), PLACES)
def test_in_the_place_of_a_table(data: Path, place: Callable[[Path], None], why: str) -> None:
    root = write_fgvc(data, "oxford_flowers", "")
    place(root / "val.json")
    assert f"{root / 'val.json'} cannot be read as JSON: " in said("fgvc/oxford_flowers")
    assert why in said("fgvc/oxford_flowers")
    (data / "eurosat").mkdir()
    place(data / "eurosat" / "split_zhou_EuroSAT.json")
    assert "cannot be read as JSON" in said("fewshot/eurosat-1shot")
    assert why in said("fewshot/eurosat-1shot")


@pytest.mark.parametrize("place", [fifo, device])
def test_in_the_place_of_an_image(data: Path, place: Callable[[Path], None]) -> None:
    root = write_vtab(data)
    place(root / "images/test/000003.png")
    for what in ("load", "split_sha256"):
        assert said("vtab/kitti", what) == (
            f"task vtab/kitti: test.txt: 1 image (images/test/000003.png) of 12 a pipe or a device in {root}: put the "
            "image there, or take it off the list"
        )


def test_a_table_that_is_nested_deep(data: Path) -> None:
    (data / "eurosat").mkdir()
    (data / "eurosat" / "split_zhou_EuroSAT.json").write_text("[" * 100_000)
    assert "split_zhou_EuroSAT.json cannot be read as JSON" in said("fewshot/eurosat-1shot")


@pytest.mark.parametrize("label", ["9" * 5000, "1000000"])
def test_a_label_of_many_digits(data: Path, tmp_path: Path, label: str) -> None:
    """Python reads no number of 5,000 digits; classes up to such a one would fill the memory."""
    root = write_vtab(data)
    (root / "test.txt").write_text(f"images/test/000003.png {label}\n")
    assert f"{root / 'test.txt'}, line 1: the label is '{label[:20]}" in said("vtab/kitti")
    for split in ("train", "val", "test"):
        write_picture(tmp_path / "videos" / split / "img_00001.jpg", 0, 0)
        (tmp_path / "videos" / f"{split}.txt").write_text(f"{split} 1 {label}\n")
    assert "train.txt, line 1: the label is" in said(f"video_folder/{tmp_path / 'videos'}")
    (tmp_path / "videos" / "train.txt").write_text(f"train {label} 0\n")
    assert "train.txt, line 1: " in said(f"video_folder/{tmp_path / 'videos'}")


def test_a_frame_that_is_none(data: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for frame in (1, 2, 3):
            write_picture(tmp_path / "videos" / split / f"img_{frame:05}.jpg", 0, frame)
        (tmp_path / "videos" / f"{split}.txt").write_text(f"{split} 3 0\n")
    fifo(tmp_path / "videos" / "test" / "img_00002.jpg")
    assert "not a regular file" in said(f"video_folder/{tmp_path / 'videos'}")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"folder/\xff/0.png", r"'\udcff'"),
        (b"folder/a/caf\xe9.png", r"'caf\udce9.png'"),
        (b"folder/a/\xe9/0.png", r"'\udce9'"),
    ],
)
def test_names_that_are_not_utf_8(data: Path, tmp_path: Path, name: bytes, shown: str) -> None:
    root = write_folder(tmp_path / "folder")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    odd.parent.mkdir(exist_ok=True)
    os.link(root / "a" / "1.png", odd)
    for what in ("load", "split_sha256"):
        assert f"is not UTF-8 ({shown}): rename it" in said(f"folder/{root}", what)
    assert len(make_task(f"folder/{root}").check()) == 1


def test_a_folder_whose_own_name_is_not_utf_8(data: Path, tmp_path: Path) -> None:
    """It would be the task's; a data set's folder is nobody's name."""
    root = write_folder(Path(f"{tmp_path}/\udcff"))
    with pytest.raises(PeftmarkError, match=r"is not UTF-8 \(.*\\udcff'\): rename it"):
        make_task(f"folder/{root}").split_sha256()


def test_a_data_set_in_a_folder_whose_name_is_not_utf_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(f"{tmp_path}/\udcff")
    write_vtab(root)
    monkeypatch.setenv("PEFTMARK_DATA", str(root))
    assert len(make_task("vtab/kitti").load().train) == 16


def write_folder(root: Path) -> Path:
    for label, name in enumerate("ab"):
        for index in range(5):
            write_picture(root / name / f"{index}.png", label, index)
    return root
