"""What a worker process does: import once, then carry out one run after another."""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from pathlib import Path

import torch

from ...errors import PeftmarkError
from ...registry import load_plugins
from ...results import ADAPTERS, RunSpec, Store
from ..describe import describe
from ..prefix_cache import PrefixCache, memory_budget
from ..run import load_task, run
from .outcome import Options, Outcome

_options: Options | None = None
_cache: PrefixCache | None = None
_broken: PeftmarkError | None = None
"""Why no run can be carried out here. Each run says so: a failing initializer would break the pool with a traceback."""


def start(options: Options) -> None:
    """Prepare this process: one thread on a CPU (results depend on the number), plug-ins, an end with the parent."""
    global _options, _broken, _cache
    _options = options
    # its files lie beside the records: a machine's own folder for temporary files may be in memory
    _cache = PrefixCache(memory_budget(options.jobs), options.results) if options.cache else None
    _end_with_parent()
    make_deterministic(torch.device(options.device))
    warnings.filterwarnings("ignore", module="open_clip")
    try:
        load_plugins(options.plugins)
    except PeftmarkError as error:
        _broken = error


def make_deterministic(device: torch.device) -> None:
    """The same spec must give the same bits: one thread on a CPU, deterministic kernels on a GPU."""
    if device.type == "cpu":
        torch.set_num_threads(1)
    else:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS needs it to be deterministic
        torch.use_deterministic_algorithms(True, warn_only=True)


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
    if _broken is not None:
        raise _broken
    store = Store(_options.results)
    adapter = Path(_options.results) / ADAPTERS / f"{spec.run_id}.safetensors" if _options.save_adapters else None
    checkpoint = _options.checkpoints.get(spec.backbone.weights)
    record = run(spec, torch.device(_options.device), checkpoint, adapter, _cache)
    store.write(record)
    if record.status == "ok":
        describe(store.root, spec, *load_task(spec.task.name))
    return Outcome.of(record)
