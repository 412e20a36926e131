"""Data sets as torchvision keeps them, from miniatures of its folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures import write_picture
from scipy.io import savemat
from torchvision import datasets

from peftmark import TASKS
from peftmark.errors import PeftmarkError
from peftmark.tasks.torchvision_sets import TorchvisionDtd, TorchvisionFlowers, TorchvisionPets, TorchvisionSet


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFTMARK_DATA", str(tmp_path))
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(TorchvisionSet, "sizes", (8, 4))
    monkeypatch.setattr(TorchvisionSet, "preprocessing", "squash-bicubic-16")
    for kind in (TorchvisionDtd, TorchvisionFlowers, TorchvisionPets):
        monkeypatch.setattr(kind, "num_classes", 2)
        monkeypatch.setattr(kind, "test_size", 6)
    return tmp_path / "torchvision"


def write_dtd(root: Path) -> None:
    (root / "dtd/dtd/labels").mkdir(parents=True)
    for split, n in (("train", 10), ("val", 6), ("test", 6)):
        names = [f"{('banded', 'dotted')[i % 2]}/{split}_{i}.jpg" for i in range(n)]
        (root / f"dtd/dtd/labels/{split}1.txt").write_text("\n".join(names) + "\n")
        for i, name in enumerate(names):
            write_picture(root / "dtd/dtd/images" / name, i % 2, 100 * ("train", "val", "test").index(split) + i)


def write_pets(root: Path) -> None:
    (root / "oxford-iiit-pet/annotations").mkdir(parents=True)
    for split, n in (("trainval", 14), ("test", 6)):
        lines = []
        for i in range(n):
            name = f"{('Abyssinian', 'beagle')[i % 2]}_{split}{i}"
            lines.append(f"{name} {i % 2 + 1} {i % 2 + 1} 1")
            write_picture(root / f"oxford-iiit-pet/images/{name}.jpg", i % 2, 100 * n + i)
        (root / f"oxford-iiit-pet/annotations/{split}.txt").write_text("\n".join(lines) + "\n")


def write_flowers(root: Path) -> None:
    folder = root / "flowers-102"
    for i in range(1, 23):
        write_picture(folder / f"jpg/image_{i:05}.jpg", i % 2, i)
    savemat(folder / "setid.mat", {"trnid": range(1, 11), "valid": range(11, 17), "tstid": range(17, 23)})
    savemat(folder / "imagelabels.mat", {"labels": [i % 2 + 1 for i in range(1, 23)]})


WRITE = {"dtd": write_dtd, "oxford_flowers102": write_flowers, "oxford_iiit_pet": write_pets}


@pytest.mark.parametrize("name", WRITE)
def test_a_draw_of_its_own(data: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(datasets.Flowers102, "_check_integrity", lambda self: True)  # sums of the real files
    WRITE[name](data)
    task = TASKS[f"torchvision/{name}"](f"torchvision/{name}")
    found = task.load()
    assert [len(split) for split in (found.train, found.validation, found.tests["test"])] == [8, 4, 6]
    assert found.warnings == ()
    for split in (found.train, found.validation, found.tests["test"]):
        left, right = split.inputs[..., :4].float().mean((1, 2, 3)), split.inputs[..., 4:8].float().mean((1, 2, 3))
        assert (right > left).long().tolist() == split.targets.tolist()
    train, validation, test = (images.paths for images in task.lists())
    if name == "dtd":
        assert all("/train_" in path for path in train)
        assert all("/val_" in path for path in validation)
    assert len({*train, *validation, *test}) == 18


def test_what_is_not_there(data: Path) -> None:
    with pytest.raises(PeftmarkError, match=r"torchvision finds no DTD in .*datasets\.DTD\('.*', download=True\)"):
        TorchvisionDtd("torchvision/dtd").split_sha256()


def test_too_few_to_draw(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dtd(data)
    monkeypatch.setattr(TorchvisionSet, "sizes", (8, 7))
    with pytest.raises(PeftmarkError, match=r"has 8 and 6 images to draw; \(8, 7\) are needed"):
        TorchvisionDtd("torchvision/dtd").split_sha256()
