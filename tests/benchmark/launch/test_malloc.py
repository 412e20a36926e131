"""Freed memory stays with a process until it is given back."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from peftmark.benchmark.launch import worker

SCRIPT = """
import json, resource, sys
import torch
from peftmark.benchmark.launch.malloc import return_freed_memory
from peftmark.benchmark.launch.worker import prepare_process

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

bare = faults()
prepare_process(torch.device("cpu"))
faults()
kept, held = faults(), resident()
return_freed_memory()
json.dump([bare, kept, held - resident()], sys.stdout)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have their own ways")
def test_a_process_takes_the_memory_of_a_step_once() -> None:
    """Five times 64 MiB are some 80,000 pages, or fewer large ones."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120)
    bare, kept, returned = json.loads(done.stdout)
    assert kept < bare / 2  # none of its own, but the system may take pages back meanwhile
    assert returned > 0.9 * 2**26


def test_a_worker_gives_it_back_after_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr(worker, "_options", SimpleNamespace(until=None))
    monkeypatch.setattr(
        worker, "_run", lambda spec, options, place: events.append("run") or SimpleNamespace(status="error")
    )
    monkeypatch.setattr(worker, "return_freed_memory", lambda: events.append("returned"))
    monkeypatch.setattr(worker, "Outcome", SimpleNamespace(of=lambda record, seconds: events.append("told")))
    for _ in range(2):
        worker.work(None, Path("record.json"))
    assert events == ["run", "returned", "told"] * 2
