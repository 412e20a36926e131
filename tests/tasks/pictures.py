"""Miniatures of image data sets on disk, in their real layouts and formats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_picture(path: Path, label: int, seed: int, size: tuple[int, int] = (24, 20), classes: int = 4) -> None:
    """An image with noise and a bright bar, whose place says its class; the ending says the format."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 80, (height, width, 3), dtype=np.uint8)
    bar = width // classes
    pixels[:, label * bar : (label + 1) * bar] += 150
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_vtab(
    data: Path, name: str = "kitti", sizes: Sequence[int] = (16, 8, 12), classes: int = 4, suffix: str = ".png"
) -> Path:
    """``vtab-1k/<name>`` as NOAH's script writes it: ``train800val200.txt`` names copies of two other lists' images."""
    root = data / "vtab-1k" / name
    both: list[str] = []
    for seed, (split, size) in enumerate(zip(("train800", "val200", "test"), sizes, strict=True)):
        lines = []
        for index in range(size):
            path, label = f"images/{split}/{index:06}{suffix}", index % classes
            write_picture(root / path, label, 1000 * seed + index, classes=classes)
            lines.append(f"{path} {label}\n")
            if split != "test":
                copy = f"images/train800val200/{len(both):06}{suffix}"
                (root / copy).parent.mkdir(exist_ok=True)
                (root / copy).write_bytes((root / path).read_bytes())
                both.append(f"{copy} {label}\n")
        (root / f"{split}.txt").write_text("".join(lines))
    (root / "train800val200.txt").write_text("".join(both))
    return root


def write_fgvc(data: Path, folder: str, images: str, sizes: Sequence[int] = (16, 8, 12), classes: int = 4) -> Path:
    """``fgvc/<folder>`` with VPT's JSON lists; its class ids begin at 1."""
    root = data / "fgvc" / folder
    for seed, (split, size) in enumerate(zip(("train", "val", "test"), sizes, strict=True)):
        table = {}
        for index in range(size):
            label = index % classes
            path = f"{label:03}.class/{split}_{index}.jpg"
            write_picture(root / images / path, label, 1000 * seed + index, classes=classes)
            table[path] = label + 1
        (root / f"{split}.json").write_text(json.dumps(table))
    return root
