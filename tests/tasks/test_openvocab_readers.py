"""Readers of open-vocabulary data sets: what they find, and one clear line for each mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from layouts import NAMES, WNIDS, picture, write_aircraft, write_imagenet, write_split_file, write_variants

from peftmark.errors import PeftmarkError
from peftmark.tasks.openvocab.imagenet import read_imagenet, read_variant
from peftmark.tasks.openvocab.sets import SETS, VARIANTS, read_set, templates_of
from peftmark.tasks.openvocab.split_file import read_aircraft, read_split_file


def read(file: Path, classes: int = 4) -> Any:
    return read_split_file(file.parent, "2750", file.name, classes)


def test_a_split_file_is_read_as_it_is(tmp_path: Path) -> None:
    listing = read(write_split_file(tmp_path))
    assert listing.class_names == ("land_use 0", "land_use 1", "land_use 2", "land_use 3")
    assert {name: len(images) for name, images in listing.splits.items()} == {"train": 12, "val": 8, "test": 8}
    test = listing.splits["test"]
    assert test.paths[:3] == ("2750/class_0/test_0.jpg", "2750/class_0/test_1.jpg", "2750/class_1/test_0.jpg")
    assert test.labels == (0, 0, 1, 1, 2, 2, 3, 3)


def test_images_may_lie_in_the_root_of_the_set(tmp_path: Path) -> None:
    file = write_split_file(tmp_path, "stanford_cars", "", "split_zhou_StanfordCars.json")
    assert read_split_file(file.parent, "", file.name, 4).splits["val"].paths[0] == "class_0/val_0.jpg"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["train"].append(["class_0/gone.jpg", 0, "land_use 0"]), "1 image .*gone.jpg.* missing"),
        (lambda t: t["train"].append(["class_0/x.jpg", 4, "more"]), r"there is a label 4; the 4 classes"),
        (lambda t: t["train"].append(["class_0/x.jpg", -1, "more"]), r"there is a label -1; the 4 classes"),
        (
            lambda t: t["val"].append(["class_0/x.jpg", 1, "beach"]),
            r"val\[8\]: class 1 is 'beach' here and 'land",
        ),
        (lambda t: t["train"].append(t["train"][0]), r"train\[12\].* stands in .*train\[0\] already"),
        (lambda t: t["test"].append(t["train"][0]), r"1 image .*train_0.jpg.* of .*test also in .*train"),
        (lambda t: t["train"].append(["../dtd/x.jpg", 0, "land_use 0"]), r"train\[12\]: '../dtd/x.jpg' leaves the"),
        (lambda t: t["train"].append(["/etc/x.jpg", 0, "land_use 0"]), r"train\[12\]: '/etc/x.jpg' leaves the"),
        (lambda t: t["train"].append(["class_0/x.jpg", 0]), r"train\[12\]: .* is not \[path, label"),
        (
            lambda t: t["train"].append(["class_0/x.jpg", True, "a"]),
            r"train\[12\]: .* is not \[path, label, class name\]",
        ),
        (lambda t: t["test"].clear(), "test names no image"),
        (lambda t: t.pop("val"), "has no lists train, val and test"),
    ],
)
def test_a_mistake_in_a_split_file_is_one_clear_line(tmp_path: Path, change: Any, message: str) -> None:
    file = write_split_file(tmp_path)
    table = json.loads(file.read_text())
    change(table)
    file.write_text(json.dumps(table))
    with pytest.raises(PeftmarkError, match=message) as error:
        read(file)
    assert "\n" not in str(error.value)
    assert file.name in str(error.value)


def test_a_split_file_of_another_set_or_none(tmp_path: Path) -> None:
    file = write_split_file(tmp_path)
    with pytest.raises(PeftmarkError, match="has 4 classes; it should have 10"):
        read(file, classes=10)
    for content in (b'{"train": [', b"\xff\xfe\x00", b"<html>"):
        file.write_bytes(content)
        with pytest.raises(PeftmarkError, match=r"EuroSAT\.json cannot be read as JSON"):
            read(file)
    file.write_bytes(b"[]")
    with pytest.raises(PeftmarkError, match="has no lists"):
        read(file)
    file.unlink()
    with pytest.raises(PeftmarkError, match=r"EuroSAT.json: no such file; CoOp's DATASETS.md"):
        read(file)


def test_aircraft_by_its_own_lists(tmp_path: Path) -> None:
    listing = read_aircraft(write_aircraft(tmp_path), 2)
    assert listing.class_names == ("707-320", "Eurofighter Typhoon")
    assert listing.splits["val"].paths == ("images/1025801.jpg", "images/1025802.jpg")
    assert listing.splits["test"].labels == (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("variants.txt", "707-320\n707-320\n", "variants.txt, line 2: '707-320' stands there twice"),
        ("variants.txt", "707-320\n", "variants.txt has 1 classes; it should have 2"),
        ("images_variant_train.txt", "1025795 Concorde\n", "train.txt, line 1: there is no variant 'Concorde'"),
        ("images_variant_test.txt", "1025795 707-320\n", "1 image .*1025795.jpg.* of .*test also in .*train"),
        ("images_variant_test.txt", "../a 707-320\n", "test.txt, line 1: '../a' leaves the folder"),
        ("images_variant_val.txt", "9 707-320\n", "1 image .*9.jpg.* missing"),
    ],
)
def test_a_mistake_in_aircraft_s_lists(tmp_path: Path, file: str, text: str, message: str) -> None:
    root = write_aircraft(tmp_path)
    (root / file).write_text(text)
    with pytest.raises(PeftmarkError, match=message):
        read_aircraft(root, 2)


@pytest.mark.parametrize("flat", [False, True])
def test_imagenet_s_validation_images_in_folders_or_with_a_list(tmp_path: Path, flat: bool) -> None:
    listing = read_imagenet(write_imagenet(tmp_path, flat=flat), 4)
    assert listing.class_names == tuple(NAMES[:4])
    assert len(listing.splits["train"]) == 24
    assert listing.splits["test"].labels == (0, 0, 1, 1, 2, 2, 3, 3)
    names = [Path(path).name for path in listing.splits["test"].paths]
    assert names == [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 9)]


def test_imagenet_s_classes_are_those_of_the_sorted_folders(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path)
    lines = (root / "classnames.txt").read_text().splitlines()
    (root / "classnames.txt").write_text("\n".join(reversed(lines)))
    assert read_imagenet(root, 4).class_names == tuple(NAMES[:4])


def test_mistakes_in_imagenet_s_folder(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path, flat=True)
    names, listed = (root / "classnames.txt").read_text(), (root / "val.txt").read_text()
    for file, text, message in [
        ("classnames.txt", names + "n09999999 alien\n", "classnames.txt has 5 classes; it should have 4"),
        ("classnames.txt", names + "n01440764 fish\n", "line 5: n01440764 stands there twice"),
        ("classnames.txt", "tench\n", "line 1: 'tench' is not a folder's name and a class name"),
        ("val.txt", listed + "ILSVRC2012_val_00000009.JPEG 4\n", "val.txt, line 9: the class is '4'"),
        ("val.txt", listed + "../x.JPEG 1\n", "val.txt, line 9: '../x.JPEG' leaves the folder"),
        ("val.txt", listed + "gone.JPEG 1\n", "1 image .*gone.JPEG.* missing"),
        ("val.txt", None, "val.txt: no such file; the validation images are not in folders of their classes"),
    ]:
        if text is None:
            (root / file).unlink()
        else:
            (root / file).write_text(text)
        with pytest.raises(PeftmarkError, match=message):
            read_imagenet(root, 4)
        (root / "classnames.txt").write_text(names)
        (root / "val.txt").write_text(listed)
    for image in (root / "images/train" / WNIDS[2]).iterdir():
        image.unlink()
    with pytest.raises(PeftmarkError, match=f"{WNIDS[2]} has no images"):
        read_imagenet(root, 4)


def test_v2_s_folders_are_numbers_not_texts(tmp_path: Path) -> None:
    """With twelve classes, 10 and 11 come after 9, not after 1."""
    root = tmp_path / "imagenetv2"
    for label in range(12):
        picture(root / "val" / str(label) / f"{label}.jpg", label)
    names = "".join(f"n{10 + label:08} class {label}\n" for label in range(12))
    (root / "classnames.txt").write_text(names)
    test = read_variant(root, "val", 12, 12, tmp_path).splits["test"]
    assert test.labels == tuple(range(12))
    assert [int(Path(path).stem) for path in test.paths] == list(range(12))
    assert test.class_names == tuple(f"class {label}" for label in range(12))


def test_a_part_of_imagenet_s_classes_has_labels_of_its_own(tmp_path: Path) -> None:
    imagenet = write_imagenet(tmp_path)
    write_variants(tmp_path)
    test = read_variant(tmp_path / "imagenet-rendition", "imagenet-r", 2, 4, imagenet).splits["test"]
    assert test.class_names == (NAMES[1], NAMES[3])
    assert test.labels == (0, 1)
    sketch = read_variant(tmp_path / "imagenet-sketch", "images", 4, 4, imagenet).splits["test"]
    assert (sketch.class_names, len(sketch)) == (tuple(NAMES[:4]), 8)


def test_mistakes_in_a_variant(tmp_path: Path) -> None:
    imagenet = write_imagenet(tmp_path)
    write_variants(tmp_path)
    v2, images = tmp_path / "imagenetv2", "imagenetv2-matched-frequency-format-val"
    with pytest.raises(PeftmarkError, match="format-val has 4 classes; it should have 1000"):
        read_variant(v2, images, 1000, 4, imagenet)
    (v2 / images / "2").rename(v2 / images / "7")
    with pytest.raises(PeftmarkError, match=f"there is no folder .*{images}/2"):
        read_variant(v2, images, 4, 4, imagenet)
    adversarial = tmp_path / "imagenet-adversarial"
    picture(adversarial / "imagenet-a" / "n09999999" / "0.jpg", 0)
    with pytest.raises(PeftmarkError, match="imagenet-a/n09999999 is no class of classnames"):
        read_variant(adversarial, "imagenet-a", 3, 4, imagenet)


def test_every_set_has_prompts_and_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(SETS) == 11
    for name in SETS:
        assert all("{}" in template for template in templates_of(name))
    monkeypatch.delenv("PEFTMARK_DATA", raising=False)
    with pytest.raises(PeftmarkError, match="PEFTMARK_DATA is not set"):
        read_set("dtd")
    monkeypatch.setenv("PEFTMARK_DATA", str(tmp_path))
    for name in (*SETS, *VARIANTS):
        with pytest.raises(PeftmarkError, match="put the data set there"):
            read_set(name)
