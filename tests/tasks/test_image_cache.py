"""Named preprocessings, and the cache of decoded images."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pictures import write_picture
from PIL import Image
from torchvision import transforms

from peftmark.errors import PeftmarkError
from peftmark.tasks.images import ImageList, Preprocessing, cache_folder, data_root, decoded, image_list

HOW = "squash-bicubic-16"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def write_list(root: Path, n: int = 6, suffix: str = ".png") -> ImageList:
    for index in range(n):
        write_picture(root / f"{index}{suffix}", index % 4, index)
    return image_list("list.txt", root, [(f"{i}{suffix}", i % 4, f"line {i}") for i in range(n)], tuple("abcd"))


def random_image(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("size", [(400, 300), (299, 401), (1000, 225), (224, 224), (30, 20)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_preprocessings_are_torchvision_s(size: tuple[int, int], interpolation: str) -> None:
    mode = transforms.InterpolationMode(interpolation)
    image = random_image(*size)
    cropped = transforms.Compose([transforms.Resize(224, mode), transforms.CenterCrop(224), transforms.PILToTensor()])(
        image
    )
    squashed = transforms.Compose([transforms.Resize((224, 224), mode), transforms.PILToTensor()])(image)
    assert torch.equal(torch.from_numpy(Preprocessing.named(f"crop-{interpolation}-224")(image)), cropped)
    assert torch.equal(torch.from_numpy(Preprocessing.named(f"squash-{interpolation}-224")(image)), squashed)


def test_a_preprocessing_s_name_is_all_of_it() -> None:
    assert Preprocessing.named("crop-bilinear-32").name == "crop-bilinear-32"
    for name in ("crop-nearest-32", "squash-bicubic-0", "squash-bicubic", ""):
        with pytest.raises(PeftmarkError, match=r"unknown preprocessing .*as in squash-bicubic-224"):
            Preprocessing.named(name)


@pytest.mark.parametrize(("mode", "suffix"), [("L", ".png"), ("P", ".gif"), ("RGBA", ".png"), ("CMYK", ".jpg")])
def test_other_colours_become_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    random_image(16, 16, mode).save(path)
    assert torch.equal(
        torch.from_numpy(Preprocessing.named(HOW).read(path)),
        transforms.PILToTensor()(Image.open(path).convert("RGB")),
    )


def test_pixels_and_digests_of_a_list(tmp_path: Path) -> None:
    images = write_list(tmp_path / "set")
    found = decoded(images, HOW)
    how = Preprocessing.named(HOW)
    expected = torch.stack([torch.from_numpy(how.read(tmp_path / "set" / f"{i}.png")) for i in range(6)])
    assert torch.equal(found.images, expected)
    sha = hashlib.sha256
    assert [row.numpy().tobytes() for row in found.digests] == [sha(e.numpy().tobytes()).digest() for e in expected]


def counted(calls: list[int]) -> Callable[[str, int, int], None]:
    return lambda what, done, total: calls.append(done)


def test_decoded_once(tmp_path: Path, cache: Path) -> None:
    images = write_list(tmp_path / "set")
    calls: list[int] = []
    first = decoded(images, HOW, counted(calls))
    again = decoded(images, HOW, counted(calls))
    assert calls == [6]
    assert torch.equal(first.images, again.images)
    assert [path.suffix for path in cache.iterdir() if path.is_dir()] == [""]


def test_what_is_written_into_the_tensor_stays_out_of_the_file(tmp_path: Path) -> None:
    images = write_list(tmp_path / "set")
    before = decoded(images, HOW).images.clone()
    decoded(images, HOW).images.zero_()
    assert torch.equal(decoded(images, HOW).images, before)


@pytest.mark.parametrize("change", ["size", "time", "list", "preprocessing", "nothing"])
def test_what_decides_the_pixels_is_the_key(tmp_path: Path, change: str) -> None:
    root = tmp_path / "set"
    images, how = write_list(root), HOW
    decoded(images, how)
    if change == "size":
        status = (root / "3.png").stat()
        write_picture(root / "3.png", 1, 77, size=(40, 40))
        os.utime(root / "3.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "time":
        os.utime(root / "3.png", ns=(1, 1))
    elif change == "list":
        images = image_list("list.txt", root, [(f"{i}.png", i % 4, f"{i}") for i in range(5)], tuple("abcd"))
    elif change == "preprocessing":
        how = "crop-bicubic-16"
    calls: list[int] = []
    decoded(images, how, counted(calls))
    assert bool(calls) == (change != "nothing")


def test_an_entry_that_is_cut_short_is_built_again(tmp_path: Path, cache: Path) -> None:
    images = write_list(tmp_path / "set")
    before = decoded(images, HOW).images.clone()
    [entry] = [path for path in cache.iterdir() if path.is_dir()]
    os.truncate(entry / "pixels", 100)
    assert torch.equal(decoded(images, HOW).images, before)


def spoil(file: Path, place: int) -> None:
    """Flips a bit; the file keeps its size and modification time."""
    status = file.stat()
    with file.open("r+b") as stream:
        stream.seek(place)
        [byte] = stream.read(1)
        stream.seek(place)
        stream.write(bytes([byte ^ 1]))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("name", ["pixels", "digests"])
def test_an_entry_that_is_spoiled_is_mended(
    tmp_path: Path, cache: Path, name: str, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By decoding what does not have its digest, in this process or where it was not opened before."""
    images = write_list(tmp_path / "set")
    before = decoded(images, HOW)
    pixels, digests = before.images.clone(), before.digests.clone()
    [entry] = [path for path in cache.iterdir() if path.is_dir()]
    spoil(entry / name, (entry / name).stat().st_size - 3)
    if elsewhere:
        monkeypatch.setattr("peftmark.tasks.images.cache._sound", set())
    read: list[str] = []
    plain = Preprocessing.read
    monkeypatch.setattr(Preprocessing, "read", lambda self, path: read.append(path.name) or plain(self, path))
    said: list[tuple[str, int, int]] = []
    after = decoded(images, HOW, lambda *progress: said.append(progress))
    assert torch.equal(after.images, pixels)
    assert torch.equal(after.digests, digests)
    assert read == ["5.png"]
    assert said == [("list.txt (1 spoiled in the cache)", 6, 6)]
    said.clear()
    decoded(images, HOW, lambda *progress: said.append(progress))
    assert said == []
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [entry.name]


def test_unreadable_images_are_named_and_counted(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "set"
    images = write_list(root)
    (root / "1.png").write_bytes((root / "1.png").read_bytes()[:200])
    (root / "4.png").write_text("not an image")
    with pytest.raises(PeftmarkError, match=r"list\.txt: 2 images \(1\.png: .*4\.png: .*\) of 6 cannot be read") as e:
        decoded(images, HOW)
    assert "\n" not in str(e.value)
    assert not [path for path in cache.iterdir() if path.is_dir()]
    write_picture(root / "1.png", 1, 1)
    write_picture(root / "4.png", 0, 4)
    assert len(decoded(images, HOW).images) == 6


def test_no_room_is_said_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_list(tmp_path / "set")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(PeftmarkError, match=r"list\.txt: its pixels need 0\.0 GiB in .*set PEFTMARK_CACHE"):
        decoded(images, HOW, counted([]))


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "file"))
    with pytest.raises(PeftmarkError, match=r"image cache .* cannot be used .*set PEFTMARK_CACHE"):
        decoded(write_list(tmp_path / "set"), HOW)


SLOW = """
import os, sys, time
from pathlib import Path
from peftmark.tasks.images import Preprocessing, decoded, image_list
read = Preprocessing.read
def slow(self, path):
    os.write(1, f"{path.name}\\n".encode())
    time.sleep(0.05)
    return read(self, path)
Preprocessing.read = slow
root = Path(sys.argv[1])
images = image_list("list.txt", root, [(f"{i}.png", i % 4, str(i)) for i in range(40)], tuple("abcd"))
decoded(images, "squash-bicubic-16")
"""


def slow_process(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SLOW, str(root)], stdout=subprocess.PIPE, text=True)


def test_a_build_that_was_killed_goes_on(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "set"
    images = write_list(root, 40)
    process = slow_process(root)
    assert process.stdout is not None
    for _ in range(15):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    [partial] = cache.glob("*.partial")
    with (partial / "pixels").open("r+b") as file:  # a page that never reached the disk
        file.write(b"\0" * 100)
    again = slow_process(root)
    names = (again.communicate()[0] or "").split()
    assert again.returncode == 0
    assert "0.png" in names
    assert 20 < len(names) < 34
    assert not list(cache.glob("*.partial"))
    how = Preprocessing.named(HOW)
    expected = torch.stack([torch.from_numpy(how.read(root / path)) for path in images.paths])
    assert torch.equal(decoded(images, HOW, counted([])).images, expected)


def test_two_processes_build_it_once(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_list(root, 40)
    both = [slow_process(root), slow_process(root)]
    names = [name for process in both for name in process.communicate()[0].split()]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(names) == sorted(f"{i}.png" for i in range(40))


def test_the_folders_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PEFTMARK_DATA", raising=False)
    with pytest.raises(PeftmarkError, match="PEFTMARK_DATA is not set: `export PEFTMARK_DATA=/path`"):
        data_root()
    monkeypatch.setenv("PEFTMARK_DATA", str(tmp_path / "gone"))
    with pytest.raises(PeftmarkError, match=r"PEFTMARK_DATA=.*gone: there is no such folder"):
        data_root()
    monkeypatch.setenv("PEFTMARK_DATA", str(tmp_path))
    assert data_root() == tmp_path.resolve()
    monkeypatch.delenv("PEFTMARK_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "peftmark" / "images"
