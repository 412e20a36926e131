"""What a worker process does: import once, then carry out one run after another."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from ...errors import PeftmarkError
from ...methods.files import know_files
from ...registry import load_plugins
from ...results import ADAPTERS, CostRecord, CostSpec, RunRecord, RunSpec, Store, predictions_file
from ...results.files import hold
from ...tasks import draw_of
from ..measure.profile import profile
from ..plan.runs import Spec
from ..run.prefix_cache import PrefixCache, memory_budget
from ..run.run import load_task, run
from .cards import write_pair_cards, write_task_card
from .malloc import keep_freed_memory, return_freed_memory
from .outcome import POSTPONED, Options, Outcome

_options: Options | None = None
_cache: PrefixCache | None = None
_broken: PeftmarkError | None = None
"""Why no run can be carried out here. Each run says so: nothing else could be said of it."""


def start(options: Options) -> None:
    """Prepare this process: one thread on a CPU (results depend on the number), plug-ins, an end with the parent."""
    global _options, _broken, _cache
    _options = options
    if options.folder is not None:
        hold(options.results, options.folder)
    # its files lie beside the records: a machine's own folder for temporary files may be in memory
    _cache = PrefixCache(memory_budget(options.jobs), options.results) if options.cache else None
    _end_with_parent()
    prepare_process(torch.device(options.device))
    know_files(options.method_files)
    try:
        load_plugins(options.plugins)
    except PeftmarkError as error:
        _broken = error


def prepare_process(device: torch.device) -> None:
    """The same spec must give the same bits: one thread on a CPU, deterministic kernels on a GPU.

    On a CPU a step keeps its memory for the next one.
    """
    warnings.filterwarnings("ignore", module="open_clip")
    if device.type == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()
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


def work(spec: Spec, place: Path | None = None) -> Outcome:
    """Carry out one run or one profile and write its record, at `place` or where the options say.

    Raises:
        PeftmarkError: where plug-ins fail here.
        OSError: where the record cannot be written.
    """
    assert _options is not None
    if _broken is not None:
        raise _broken
    if _options.until is not None and time.monotonic() > float(_options.until.read_text()):
        return Outcome(spec=spec, status=POSTPONED, figure=None, seconds=0.0, message=None)
    start = time.perf_counter()
    place = place or _options.place(spec)
    record = _profile(spec, _options, place) if isinstance(spec, CostSpec) else _run(spec, _options, place)
    problem = _write_cards(spec, _options) if record.status == "ok" else None
    return_freed_memory()
    outcome = Outcome.of(record, time.perf_counter() - start)
    return replace(outcome, message=problem) if problem else outcome


def carry_out(job: tuple[Spec, Path]) -> Outcome:
    """As `work`; what is raised is an outcome."""
    try:
        return work(*job)
    except PeftmarkError as error:
        message = str(error)
    except BaseException as error:  # the record could not be written
        message = f"{type(error).__name__}: {error}"
    return Outcome(spec=job[0], status="error", figure=None, seconds=0.0, message=message)


def _run(spec: RunSpec, options: Options, place: Path) -> RunRecord:
    store = Store(options.results)
    adapter = Path(options.results) / ADAPTERS / f"{spec.run_id}.safetensors" if options.save_adapters else None
    checkpoint = options.checkpoints.get(spec.backbone.weights)
    predictions = predictions_file(place)
    predictions.unlink(missing_ok=True)  # of a record that is made anew
    kept = predictions if options.predictions else None
    data = options.data.get((spec.task.name, draw_of(spec.task.name, spec.seed)))
    record = run(spec, torch.device(options.device), checkpoint, adapter, _cache, kept, data)
    store.write(record, place)
    return record


def _profile(spec: CostSpec, options: Options, place: Path) -> CostRecord:
    store = Store(options.results)
    measured = spec.hardware_class is not None
    record = profile(spec, torch.device(options.device) if measured else None, speed=measured)
    store.write_cost(record, place)
    return record


def _write_cards(spec: Spec, options: Options) -> str | None:
    """What the board says of a run's method, backbone and task; why it cannot be written, which spoils no record."""
    try:
        if isinstance(spec, CostSpec):
            write_pair_cards(options.results, spec.method.name, spec.backbone)
        else:
            write_pair_cards(options.results, spec.method.name, spec.backbone.name)
            write_task_card(options.results, *load_task(spec.task.name, draw_of(spec.task.name, spec.seed)))
    except Exception as error:
        return f"recorded, but no card of it can be written: {type(error).__name__}: {error}"
    return None
