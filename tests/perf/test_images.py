"""A set of 1,000 images from the cache of decoded pixels, against decoding it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from peftmark.tasks.images import ImageList, cache_folder, decoded, image_list

COUNT = 1000


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageList:
    """Photographs in size and format: JPEG, 500 x 375 pixels, of smooth noise."""
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    random, root = np.random.default_rng(0), tmp_path / "set"
    root.mkdir()
    for index in range(COUNT):
        small = Image.fromarray(random.integers(0, 256, (47, 63, 3), dtype=np.uint8))
        small.resize((500, 375), Image.Resampling.BICUBIC).save(root / f"{index}.jpg", quality=90)
    return image_list("list", root, [(f"{index}.jpg", 0, "") for index in range(COUNT)], ("a",))


def test_from_the_cache(compare: Any, images: ImageList) -> None:
    """Both end with every image copied into memory once, in batches as a run reads them."""

    def read() -> None:
        for batch in decoded(images, "squash-bicubic-224").images.split(64):
            torch.empty_like(batch).copy_(batch)

    def decode_and_read() -> None:
        shutil.rmtree(cache_folder(), ignore_errors=True)
        read()

    compare(read, decode_and_read, target=1 / 20, pairs=3)
