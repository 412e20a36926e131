"""Miniatures of CoOp's data sets, ImageNet's variants and the video sets, in their real layouts and formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = [f"n0{number:07}" for number in (1440764, 1443537, 1484850, 1491361, 1494475, 1496331)]
NAMES = ["tench", "goldfish", "great white shark", "tiger shark", "hammerhead shark", "electric ray"]


def picture(path: Path, label: int, seed: int = 0) -> str:
    """A JPEG of 32 x 24 pixels whose brightness says its class; returns its name."""
    pixels = np.random.default_rng(seed).integers(0, 40, (24, 32, 3), dtype=np.uint8) + np.uint8(19 * label)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="JPEG")
    return path.name


def write_split_file(
    data: Path,
    folder: str = "eurosat",
    images: str = "2750",
    file: str = "split_zhou_EuroSAT.json",
    classes: int = 4,
    sizes: tuple[int, int, int] = (3, 2, 2),
) -> Path:
    """A data set with a split file; returns the file. `sizes` are images a class."""
    table: dict[str, list[object]] = {}
    for split, count in zip(("train", "val", "test"), sizes, strict=True):
        rows: list[object] = []
        for index in range(count):
            for label in range(classes):
                path = f"class_{label}/{split}_{index}.jpg"
                picture(data / folder / images / path, label, index)
                rows.append([path, label, f"land_use {label}"])
        table[split] = rows
    split_file = data / folder / file
    split_file.write_text(json.dumps(table))
    return split_file


def write_aircraft(data: Path) -> Path:
    """FGVC-Aircraft with two variants, one with a space in its name; returns its folder."""
    root = data / "fgvc_aircraft"
    names = ["707-320", "Eurofighter Typhoon"]
    root.mkdir(parents=True)
    (root / "variants.txt").write_text("\n".join(names) + "\n")
    number = 1025794
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        lines = []
        for index in range(count * len(names)):
            number += 1
            label = index % len(names)
            picture(root / "images" / f"{number:07}.jpg", label, index)
            lines.append(f"{number:07} {names[label]}\n")
        (root / f"images_variant_{split}.txt").write_text("".join(lines))
    return root


def write_imagenet(data: Path, classes: int = 4, train: int = 6, flat: bool = False) -> Path:
    """ImageNet with the first classes; returns its folder."""
    root = data / "imagenet"
    root.mkdir(parents=True)
    (root / "classnames.txt").write_text("".join(f"{WNIDS[i]} {NAMES[i]}\n" for i in range(classes)))
    lines = []
    for label in range(classes):
        for index in range(train):
            picture(root / "images/train" / WNIDS[label] / f"{WNIDS[label]}_{index}.JPEG", label, index)
        for index in range(2):
            name = f"ILSVRC2012_val_{2 * label + index + 1:08}.JPEG"
            picture(root / "images/val" / ("" if flat else WNIDS[label]) / name, label, index)
            lines.append(f"{name} {label if index else WNIDS[label]}\n")
    if flat:
        (root / "val.txt").write_text("".join(lines))
    return root


def write_variants(data: Path, classes: int = 4) -> None:
    """ImageNet-V2 (numbers), -Sketch (all classes), -A and -R (the second and the last class, and a README)."""
    for label in range(classes):
        for index in range(2):
            v2 = data / "imagenetv2/imagenetv2-matched-frequency-format-val"
            picture(v2 / str(label) / f"{index}.jpeg", label, index)
            picture(data / "imagenet-sketch/images" / WNIDS[label] / f"sketch_{index}.JPEG", label, index)
    for folder in ("imagenet-adversarial/imagenet-a", "imagenet-rendition/imagenet-r"):
        for label in (1, classes - 1):
            picture(data / folder / WNIDS[label] / "0.jpg", label)
        (data / folder / "README.txt").write_text("no class\n")
