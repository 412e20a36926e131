"""Data that change between the plan of a run and its loading: an error that says what changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from peftmark.benchmark.plan.runs import Request, plan
from peftmark.benchmark.run.run import run
from peftmark.results import RunRecord, RunSpec
from peftmark.tasks import make_task
from peftmark.tasks.task import silent

Change = Callable[[Path], object]
CPU = torch.device("cpu")


def write_image(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, 0, 255 - shade)).save(path, compress_level=0)  # all files of one size


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve training, four validation and eight test images of two classes."""
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    for split, count in (("train", 6), ("val", 2), ("test", 4)):
        for index in range(count):
            write_image(tmp_path / "photos" / split / "dark" / f"{index}.png", index)
            write_image(tmp_path / "photos" / split / "bright" / f"{index}.png", 200 + index)
    return tmp_path / "photos"


def planned(photos: Path) -> RunSpec:
    request = Request(
        methods=["toy_full"],
        tasks=[f"folder/{photos}"],
        backbones=["toy/pixels"],
        seeds=[0],
        protocol_settings={"epochs": 1},
    )
    [spec] = plan(request).specs
    assert isinstance(spec, RunSpec)
    return spec


def carried_out(spec: RunSpec, change: Change, photos: Path, prepared: bool = True) -> RunRecord:
    """A run whose data are changed after it was planned and they were decoded."""
    data = make_task(spec.task.name).prepare(silent)
    assert data is not None
    fingerprint = data.fingerprint()
    change(photos)
    return run(spec, CPU, data=fingerprint if prepared else None)


def refusal(record: RunRecord) -> str:
    assert (record.status, record.quality) == ("error", None)
    assert record.error is not None
    assert (record.error.phase, record.error.type) == ("data", "PeftmarkError")
    return record.error.message


def gone(photos: Path) -> None:
    (photos / "test/dark/0.png").unlink()
    (photos / "test/bright/3.png").unlink()


def added(photos: Path) -> None:
    for index in (7, 8, 9, 10):
        write_image(photos / "test" / "dark" / f"{index}.png", index)


def replaced(photos: Path) -> None:
    """By an image of the same size in bytes, with the old one's time."""
    path = photos / "test/dark/1.png"
    status = path.stat()
    write_image(path, 77)
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def renamed(photos: Path) -> None:
    (photos / "train/dark/0.png").rename(photos / "train/dark/00.png")


def relabelled(photos: Path) -> None:
    (photos / "train/dark/0.png").rename(photos / "train/bright/00.png")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (gone, "of 8 test examples 2 are gone"),
        (added, "4 test examples were added to 8"),
        (replaced, "test examples were replaced"),
        (renamed, "files or classes have other names"),
        (relabelled, "train examples were replaced"),
        (
            lambda photos: (gone(photos), relabelled(photos)),
            "train examples were replaced, of 8 test examples 2 are gone",
        ),
    ],
)
def test_data_that_changed_since_the_plan(toy_plugin: Path, photos: Path, change: Change, said: str) -> None:
    spec = planned(photos)
    assert refusal(carried_out(spec, change, photos)) == (
        f"the data of folder/{photos} changed since the run was planned ({said}): run the command again"
    )


@pytest.mark.parametrize("change", [gone, added, renamed, relabelled])
def test_the_planned_split_is_known_to_every_process(toy_plugin: Path, photos: Path, change: Change) -> None:
    """One that was not told what was decoded, too."""
    message = refusal(carried_out(planned(photos), change, photos, prepared=False))
    assert message.startswith(f"the data of folder/{photos} changed since the run was planned (")
    assert message.endswith("): run the command again")


def test_data_that_did_not_change(toy_plugin: Path, photos: Path) -> None:
    """A copy on another machine, whose files have other times, is the same data."""

    def copy(photos: Path) -> None:
        shutil.copytree(photos, photos.parent / "copy", copy_function=shutil.copyfile)
        shutil.rmtree(photos)
        (photos.parent / "copy").rename(photos)

    record = carried_out(planned(photos), copy, photos)
    assert (record.status, record.error) == ("ok", None)


def test_the_next_command_runs_on_what_is_there_now(toy_plugin: Path, photos: Path) -> None:
    """As the message says; the spec has the hash of the files that are there."""
    spec = planned(photos)
    gone(photos)
    again = planned(photos)
    assert again.run_id != spec.run_id
    record = carried_out(again, lambda photos: None, photos)
    assert record.quality is not None
    assert record.quality.n_test == 6


def test_a_command_whose_data_are_replaced_before_a_worker_loads_them(
    invoke: Callable[..., Any], toys: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftmark.commands import run as command

    launch = command.carry_out

    def meanwhile(*arguments: Any) -> Any:
        replaced(photos)
        return launch(*arguments)

    monkeypatch.setattr(command, "carry_out", meanwhile)
    asked = ("--method", "toy_full", "--backbone", "toy/pixels", "--task", f"folder/{photos}", "--import", toys)
    ended = invoke("run", *asked, "--jobs", 1)
    assert ended.code == 1
    assert f"the data of folder/{photos} changed since the run was planned (test examples were replaced)" in ended.out
    monkeypatch.setattr(command, "carry_out", launch)
    assert invoke("run", *asked, "--jobs", 1, "--existing", "retry").code == 0
