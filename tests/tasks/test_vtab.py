"""VTAB-1k and FGVC from miniatures of what people have on disk: to a record, and one clear line for every mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import write_fgvc, write_picture, write_vtab

import peftmark
from peftmark import TASKS
from peftmark.errors import PeftmarkError
from peftmark.tasks import TaskData
from peftmark.tasks.fgvc import Cub200, Fgvc
from peftmark.tasks.vtab import Kitti, Vtab

SHRINK = """
from peftmark.tasks.fgvc import Cub200
from peftmark.tasks.vtab import Kitti
Kitti.sizes, Kitti.test_size, Kitti.preprocessing = (16, 8), 12, "squash-bicubic-32"
Cub200.num_classes, Cub200.sizes, Cub200.preprocessing = 4, (16, 8, 12), "squash-bicubic-32"
"""


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``$PEFTMARK_DATA``, in which a miniature of the sizes below is complete."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("PEFTMARK_DATA", str(folder))
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Kitti, "sizes", (16, 8))
    monkeypatch.setattr(Kitti, "test_size", 12)
    monkeypatch.setattr(Cub200, "num_classes", 4)
    monkeypatch.setattr(Cub200, "sizes", (16, 8, 12))
    monkeypatch.setattr(Vtab, "preprocessing", "squash-bicubic-32")
    monkeypatch.setattr(Fgvc, "preprocessing", "squash-bicubic-32")
    return folder


def load(name: str = "vtab/kitti") -> TaskData:
    return TASKS[name](name).load()


def refuse(message: str, name: str = "vtab/kitti") -> None:
    """Planning already says it, in one line."""
    with pytest.raises(PeftmarkError, match=message) as error:
        TASKS[name](name).split_sha256()
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"task {name}: ")


def test_the_nineteen_and_the_five() -> None:
    classes = {name: TASKS[name].num_classes for name in TASKS.names("vtab/*")}
    assert sum(classes.values()) == 100 + 102 + 47 + 102 + 37 + 10 + 397 + 2 + 10 + 45 + 5 + 8 + 6 + 6 + 4 + 32 + 18 + 9
    groups = [TASKS.entry(name).metadata["group"] for name in classes]
    assert {group: groups.count(group) for group in groups} == {"natural": 7, "specialized": 4, "structured": 8}
    assert all(Vtab.sizes == (800, 200) for name in classes if TASKS[name] is not Kitti)
    assert (TASKS.canonical("vtab/cifar100"), TASKS.canonical("vtab/oxford_pet")) == (
        "vtab/cifar",
        "vtab/oxford_iiit_pet",
    )
    fine = {name: (TASKS[name].num_classes, sum(TASKS[name].sizes)) for name in TASKS.names("fgvc/*")}
    del fine["fgvc/cub200"]  # made small above
    assert fine == {
        "fgvc/nabirds": (555, 48_562),
        "fgvc/oxford_flowers": (102, 8_189),
        "fgvc/stanford_cars": (196, 16_185),
        "fgvc/stanford_dogs": (120, 20_580),
    }


def test_the_splits_are_the_lists(data: Path) -> None:
    write_vtab(data)
    found = load()
    assert [len(split) for split in (found.train, found.validation, found.tests["test"])] == [16, 8, 12]
    assert found.train.inputs.shape == (16, 3, 32, 32)
    assert found.tests["test"].targets.tolist() == [0, 1, 2, 3] * 3
    assert found.train.class_names == ("0", "1", "2", "3")
    assert found.warnings == ()
    bright = found.train.inputs.float().mean((1, 2)).unflatten(1, (4, 8)).mean(2).argmax(1)
    assert bright.tolist() == found.train.targets.tolist()


def test_both_splits_in_one_are_not_copied(data: Path) -> None:
    write_vtab(data)
    found = load()
    both = found.train_and_validation()
    assert torch.equal(both.inputs, torch.cat((found.train.inputs, found.validation.inputs)))
    assert both.inputs.data_ptr() == found.train.inputs.data_ptr()
    assert both.targets.tolist() == found.train.targets.tolist() + found.validation.targets.tolist()


def test_the_hash_of_the_data_needs_no_pixels(data: Path) -> None:
    write_vtab(data)
    found = load()
    before = found.sha256()
    found.train.inputs.zero_()  # in this process's memory only
    assert found.sha256() == before
    write_picture(data / "vtab-1k/kitti/images/test/000003.png", 3, 99)
    assert load().sha256() != before


def test_the_split_hash_is_of_the_lists(data: Path) -> None:
    root = write_vtab(data)
    before = Kitti("vtab/kitti").split_sha256()
    write_picture(root / "images/test/000003.png", 3, 99)
    assert Kitti("vtab/kitti").split_sha256() == before
    replace(root / "test.txt", "000003.png 3", "000003.png 2")
    assert Kitti("vtab/kitti").split_sha256() != before


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("train800.txt", "000000.png 0\n", "000000.png 0\nimages/train800/000000.png 0\n", "line 2: .*line 1 already"),
        ("train800.txt", "images/train800/000003.png 3\n", "", r"train800\.txt has 15 images; VTAB-1k has 16 there"),
        ("val200.txt", "images/val200/000003.png 3\n", "", r"val200\.txt has 7 images; VTAB-1k has 8 there"),
        ("train800.txt", "000002.png 2", "000002.png 4", "line 3: the label is 4; there are 4 classes, from 0"),
        ("train800.txt", "000002.png 2", "000002.png -1", "line 3: the label is '-1'; it must be a class number"),
        ("train800.txt", "000002.png 2", "000002.png two", "line 3: the label is 'two'"),
        ("train800.txt", "images/train800/000002.png 2", "x", "line 3: 'x' is not `path label`"),
        (
            "test.txt",
            "images/test/000001",
            "images/val200/000001",
            r"1 image \(images/val200/000001\.png\) of test\.txt",
        ),
        ("test.txt", "images/test/000001", "images/test/9", r"test\.txt: 1 image \(images/test/9\.png\) of 12 missing"),
        ("test.txt", "images/test/000001", "../x", r"test\.txt, line 2: '\.\./x\.png' leaves the folder"),
        ("test.txt", "images/test/000001", "/etc/x", r"test\.txt, line 2: '/etc/x\.png' leaves the folder"),
        ("train800val200.txt", "000000.png 0", "000000.png 1", r"train800val200\.txt has 1 images that"),
        ("train800val200.txt", "images/train800val200/000000.png 0\n", "", r"train800val200\.txt has 1 images that"),
    ],
)
def test_a_mistake_in_a_list_is_one_clear_line(data: Path, file: str, old: str, new: str, message: str) -> None:
    replace(write_vtab(data) / file, old, new)
    refuse(message)


def test_lists_of_other_images(data: Path) -> None:
    root = write_vtab(data)
    write_picture(root / "images/train800val200/000001.png", 1, 999, size=(40, 40))
    refuse(r"train800val200\.txt has 1 images that train800\.txt and val200\.txt have not")
    (root / "train800val200.txt").unlink()  # it is not needed
    assert len(load().train) == 16


@pytest.mark.parametrize("file", ["train800.txt", "val200.txt", "test.txt"])
def test_no_list(data: Path, file: str) -> None:
    (write_vtab(data) / file).unlink()
    refuse(rf"{file}: no such file; vtab/kitti needs a line `path label`")


def test_no_text_and_no_folder(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse("there is no folder .*vtab-1k/kitti: put the data set there")
    root = write_vtab(data)
    (root / "test.txt").write_bytes(b"\xff\xfe\x00")
    refuse(r"test\.txt cannot be read as text")
    (root / "test.txt").write_text("\n")
    refuse(r"test\.txt names no image")
    monkeypatch.delenv("PEFTMARK_DATA")
    refuse("PEFTMARK_DATA is not set")


def test_missing_files_are_counted(data: Path) -> None:
    root = write_vtab(data)
    for index in range(5):
        (root / f"images/train800/{index:06}.png").unlink()
    refuse(r"train800\.txt: 5 images \(images/train800/000000\.png, .*, …\) of 16 missing in ")


def test_every_class_is_there(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_vtab(data)
    monkeypatch.setattr(Kitti, "num_classes", 6)
    refuse(r"vtab/kitti has 6 classes; the lists have no image of 2 of them \(the first is 4\)")


def test_unreadable_images(data: Path) -> None:
    root = write_vtab(data)
    (root / "images/test/000001.png").write_text("no image")
    with pytest.raises(PeftmarkError, match=r"task vtab/kitti: test\.txt: 1 image \(images/test/000001\.png: "):
        load()


def test_jpeg_copies_are_a_warning_by_their_bytes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_vtab(data, suffix=".jpg")
    for path in root.rglob("*.jpg"):
        path.rename(path.with_suffix(".png"))
    for file in root.glob("*.txt"):
        file.write_text(file.read_text().replace(".jpg", ".png"))
    first, *others = load().warnings
    assert first.startswith("16 of 16 files of train800.txt are JPEG copies of a set without loss")
    assert [text.split(" are")[0] for text in others] == ["8 of 8 files of val200.txt", "12 of 12 files of test.txt"]
    monkeypatch.setattr(Kitti, "lossless", False)
    assert load().warnings == ()


def test_odd_test_splits_are_warnings(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_vtab(data)
    monkeypatch.setattr(Kitti, "test_size", 711)
    (root / "images/test/000000.png").write_bytes((root / "images/val200/000000.png").read_bytes())
    assert load().warnings == (
        "test.txt has 12 images; VTAB-1k has 711 there",
        "1 of 12 test images have the pixels of a training or validation image",
    )


FOLDERS = {"cub200": "images", "CUB_200_2011": "images"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_vpt_s_json_lists(data: Path, folder: str) -> None:
    write_fgvc(data, folder, FOLDERS[folder])
    found = load("fgvc/cub200")
    assert [len(split) for split in (found.train, found.validation, found.tests["test"])] == [16, 8, 12]
    assert found.train.class_names == ("1", "2", "3", "4")
    assert found.train.targets.tolist() == [0, 1, 2, 3] * 4
    assert found.warnings == ()


def test_text_lists_of_a_fine_grained_set(data: Path) -> None:
    root = data / "fgvc/cub200"
    for split, size in (("train", 16), ("val", 8), ("test", 11)):
        for index in range(size):
            write_picture(root / "images" / f"{split} {index}.jpg", index % 4, index + 100 * size)
        lines = [f"images/{split} {index}.jpg {index % 4}\n" for index in range(size)]
        (root / f"{split}.txt").write_text("".join(lines))
    found = load("fgvc/cub200")
    assert found.tests["test"].targets.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2]
    assert found.warnings == ("test.txt has 11 images; VPT's split has 12 there",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: {**table, "000.class/gone.jpg": 1},
            r"val\.json: 1 image \(images/000\.class/gone\.jpg\) of 9 miss",
        ),
        (lambda table: {**table, "../../x.jpg": 1}, r"val\.json: 'images/\.\./\.\./x\.jpg' leaves the folder"),
        (lambda table: {**table, "/etc/x.jpg": 1}, r"val\.json: '/etc/x\.jpg' leaves the folder"),
        (lambda table: {**table, "000.class/val_0.jpg": 9}, r"the JSON lists have 5 classes; fgvc/cub200 has 4"),
        (lambda table: {**table, "000.class/val_0.jpg": 1.5}, r"val\.json is not a list of VPT"),
        (lambda table: {**table, "000.class/train_0.jpg": 1}, r"of val\.json also in train\.json"),
        (lambda table: list(table), r"val\.json is not a list of VPT: write"),
        (lambda table: {}, r"val\.json names no image"),
    ],
)
def test_a_mistake_in_a_json_list_is_one_clear_line(data: Path, change: Callable[[Any], Any], message: str) -> None:
    file = write_fgvc(data, "cub200", "images") / "val.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    refuse(message, "fgvc/cub200")


def test_json_that_is_none(data: Path) -> None:
    file = write_fgvc(data, "cub200", "images") / "val.json"
    file.write_text('{"a.jpg": 1, "a.jpg": 1}')
    refuse(r"val\.json: 'a\.jpg' stands there twice", "fgvc/cub200")
    file.write_text("{")
    refuse(r"val\.json cannot be read as JSON", "fgvc/cub200")
    file.unlink()
    refuse(r"val\.json: no such file; VPT's lists are", "fgvc/cub200")


@pytest.fixture
def shrink(tmp_path: Path) -> Path:
    """A plug-in that makes the data sets small in the worker processes, too."""
    path = tmp_path / "shrink.py"
    path.write_text(SHRINK)
    return path


def test_a_whole_run_reaches_a_record(tmp_path: Path, data: Path, shrink: Path, command: Callable[..., Any]) -> None:
    """A linear probe sees where the bar is; what it is trained on is both splits, so nothing is left to validate."""
    write_vtab(data, suffix=".jpg")
    write_fgvc(data, "CUB_200_2011", "images")
    tasks = ("--task", "vtab/kitti", "--task", "fgvc/cub200")
    same = ("--backbone", "embedded/vit", "--protocol", "image-v1", "--import", shrink, "--jobs", 1)
    done = command("run", "--method", "linear", *tasks, *same, "--set", "protocol.learning_rate=0.01")
    assert done.code == 0, done.err
    assert "vtab/kitti: train800.txt and val200.txt: 24 of 24 images decoded" in done.out
    warning = "16 of 16 files of train800.txt are JPEG copies of a set without loss"
    assert f"warning: task vtab/kitti: {warning}" in done.err
    frame = peftmark.load_results(tmp_path / "runs")
    assert frame["status"].tolist() == ["ok", "ok"]
    assert min(frame["quality.test"]) > 60
    assert frame["quality.validation"].isna().all()
    assert frame["spec.task.preprocessing"].tolist() == ["squash-bicubic-32"] * 2
    assert frame["env.data_warnings"][1][0].startswith(warning)
    card = json.loads((tmp_path / "runs/cards/tasks/vtab__kitti.json").read_text())
    assert (card["facts"]["n_train"], card["facts"]["preprocessing"]) == (16, "squash-bicubic-32")

    (data / "vtab-1k/kitti/images/test/000001.jpg").write_text("no image")
    failed = command("run", "--method", "bitfit", *tasks, *same)
    assert failed.code == 2
    assert failed.one_line().startswith("peftmark: task vtab/kitti: test.txt: 1 image (images/test/000001.jpg: ")
    rest = command("run", "--method", "bitfit", *tasks, *same, "--available", "--set", "protocol.epochs=1")
    assert rest.code == 1
    assert "left out: task vtab/kitti: test.txt: 1 image" in rest.err
    assert "1 ok; records in runs" in rest.out


def test_a_dry_run_without_data(data: Path, invoke: Callable[..., Any]) -> None:
    write_vtab(data)
    done = invoke(
        *("run", "--suite", "vtab1k", "--backbone", "embedded/vit", "--method", "linear", "--method", "noah"),
        *("--dry-run", "--throughput", 1000),
    )
    assert (done.code, done.err) == (0, "")
    lines = done.lines
    assert [line.split()[1:4] for line in lines[:6]] == [
        [method, "embedded/vit", "vtab/kitti"] for _ in range(3) for method in ("linear", "noah")
    ]
    assert len([line for line in lines if line.startswith("missing: task vtab/")]) == 18
    assert lines[-2] == "6 to run, 0 finished, in runs"
    # linear 100 epochs, NOAH 600, of 1,000 images (of kitti's 24), three seeds; all test splits twice three times
    trained, tested = 3 * 700 * (18 * 1000 + 24), 6 * (386_429 + 12)
    assert lines[-1] == (
        f"at most {trained / 1e6:,.1f} million training and {tested / 1e6:,.1f} million test images in all 114 runs: "
        f"{(trained + tested) / 3.6e6:,.1f} hours at 1000 images a second"
    )


def test_a_suite_without_its_data(data: Path, invoke: Callable[..., Any]) -> None:
    done = invoke("run", "--suite", "vtab1k", "--backbone", "embedded/vit", "--method", "linear")
    assert done.code == 2
    assert "18 more are missing (--dry-run lists them, --available runs what is there)" in done.one_line()
