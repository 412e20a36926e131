"""What the Ray launcher decides by itself: room for workers, what one was lost for, what is left of it on a disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from peftmark.benchmark.launch.ray import cause_of, reason_of
from peftmark.benchmark.launch.ray_cluster import Cluster, import_ray, read_settings
from peftmark.benchmark.launch.scratch import Scratch
from peftmark.errors import PeftmarkError


def test_what_a_worker_was_lost_for() -> None:
    try:
        errors = import_ray().exceptions
    except PeftmarkError as error:
        pytest.skip(str(error))
    assert cause_of(errors.OutOfMemoryError("killed"), True, errors) == "memory"
    assert cause_of(errors.OutOfMemoryError("killed"), False, errors) == "memory"
    assert cause_of(errors.ActorDiedError(), False, errors) == "node"
    assert cause_of(errors.ActorDiedError(), True, errors) == "worker"
    assert cause_of(errors.ActorUnavailableError("no answer", None), True, errors) == "node"
    assert (
        reason_of(errors.OutOfMemoryError("4 of 4 GB used\nTop 10 users:\nRead the manual"), errors) == "4 of 4 GB used"
    )
    died = "It died.\n\tpid: 7\nExit detail: end of file. Some common causes include: the moon"
    assert reason_of(errors.RaySystemError(died), errors) == "Exit detail: end of file"


def test_room() -> None:
    """Parts of a GPU do not add up over several."""
    there = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 3.0, "GPU": 1.0}, {"CPU": 64.0}, {"GPU": 8.0}]

    class Ray:
        @staticmethod
        def nodes() -> list[dict[str, Any]]:
            return [{"Alive": True, "Resources": each} for each in there] + [{"Alive": False, "Resources": there[0]}]

    def slots(**settings: Any) -> int:
        return Cluster(Ray, read_settings(settings), "", None).slots()  # type: ignore[arg-type]

    assert slots() == 8 + 3 + 64
    assert slots(cpus=2) == 4 + 1 + 32
    assert slots(gpus=1) == 2 + 1
    assert slots(gpus=0.5) == 4 + 2
    assert slots(gpus=0.4) == 4 + 2
    assert slots(gpus=0.1) == 8 + 3
    assert slots(memory=1) == 0


def test_scratch_folders_of_the_dead_are_deleted(tmp_path: Path) -> None:
    mine = Scratch(tmp_path)
    code = "import sys; from peftmark.benchmark.launch.scratch import Scratch; import pathlib, time\n"
    code += f"s = Scratch(pathlib.Path({str(tmp_path)!r})); (s.path / 'file').touch(); print(s.path, flush=True)\n"
    code += "time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        Scratch(tmp_path).close()
        assert (theirs / "file").exists()
        other.kill()
    young, old, of_a_user = (tmp_path / f"peftmark-scratch-{name}" for name in ("young_00", "old_0000", "of-a-user"))
    for folder in (young, old, of_a_user):  # they have no lock
        (folder / "session").mkdir(parents=True)
    for folder in (old, of_a_user):
        os.utime(folder, (time.time() - 3600,) * 2)
    Scratch(tmp_path).close()
    assert set(tmp_path.iterdir()) == {mine.path, young, of_a_user}
    mine.close()
