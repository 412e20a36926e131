"""What a worker process does: import once, then carry out one run after another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from pathlib import Path

import torch

from ...registry import load_plugins
from ...results import ADAPTERS, RunSpec, Store
from ..describe import describe
from ..run import load_task, run
from .outcome import Options, Outcome

_options: Options | None = None


def start(options: Options) -> None:
    """Prepare this process: one thread on a CPU (results depend on the number), plug-ins, an end with the parent."""
    global _options
    _options = options
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    _end_with_parent()
    use_one_thread(torch.device(options.device))
    warnings.filterwarnings("ignore", module="open_clip")
    load_plugins(options.plugins)


def use_one_thread(device: torch.device) -> None:
    if device.type == "cpu":
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"  # scikit-learn's and OpenBLAS's pools


def _end_with_parent() -> None:
    """A parent that was killed cannot stop its workers; they watch it instead."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch-parent").start()


def work(spec: RunSpec) -> Outcome:
    """Carry out one run and write its record."""
    assert _options is not None
    store = Store(_options.results)
    adapter = Path(_options.results) / ADAPTERS / f"{spec.run_id}.safetensors" if _options.save_adapters else None
    record = run(spec, torch.device(_options.device), _options.checkpoints.get(spec.backbone.weights), adapter)
    store.write(record)
    if record.status == "ok":
        describe(store.root, spec, *load_task(spec.task.name))
    return Outcome.of(record)
