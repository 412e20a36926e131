"""What runs with ``--save-adapters`` left, as models again, and as what others load."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from ...errors import PeftmarkError
from ...methods import AdaptedModel
from ...methods.bridge.export import export_peft
from ...results import ADAPTERS, Store, decode_record
from ...results.files import read_regular
from ...tasks import draw_of
from .run import build_model, load_task


def load_run(results: Path, run: str) -> AdaptedModel:
    """The model that a run trained, in evaluation mode on the CPU; its backbone and its task's data must be here.

    Raises:
        PeftmarkError: where there is no such run, it did not end well, its adapter was not saved or does not fit, or
            what it needs is not here.
    """
    place = Store(results).paths().get(run)
    if place is None:
        raise PeftmarkError(f"there is no run {run} in {results}: give the name of a record's file without .json")
    try:
        record = decode_record(read_regular(place), place)
    except OSError as error:
        raise PeftmarkError(f"{place} cannot be read ({error.strerror})") from error
    if record.status != "ok":
        raise PeftmarkError(f"run {run} has no adapter: it ended as {record.status}")
    file = next((f for f in _places(results, place, run) if f.is_file()), None)
    if file is None:
        raise PeftmarkError(f"the adapter of run {run} was not saved: run it with --save-adapters --existing overwrite")
    spec = record.spec
    task, data = load_task(spec.task.name, draw_of(spec.task.name, spec.seed))
    model = build_model(spec, None, task, data)
    try:
        model.load_adapter_state_dict(safetensors.torch.load(file.read_bytes()))
    except (SafetensorError, OSError) as error:
        raise PeftmarkError(f"{file} cannot be read ({error}): is it whole?") from error
    return model.eval()


def _places(results: Path, record: Path, run: str) -> list[Path]:
    """Adapters lie in the folder that was run into; records may have been moved with it into another."""
    return [folder / ADAPTERS / f"{run}.safetensors" for folder in (record.parent, results)]


def write_peft_folders(results: Path, runs: tuple[str, ...], out: Path) -> list[Path]:
    """Each run's adapter as a folder that PEFT loads (see `export_peft`): `out` itself of one run, else ``out/RUN``.

    Raises:
        PeftmarkError: as of `load_run` and `export_peft`, for the first run that cannot be written.
    """
    if not results.is_dir():
        raise PeftmarkError(f"no results folder {results}: run `peftmark run` first, or name another with --results")
    if not runs:
        raise PeftmarkError("name the runs whose adapters are to be written: peftmark export RUN --format peft")
    folders = [out] if len(runs) == 1 else [out / run for run in runs]
    written = []
    for run, folder in zip(runs, folders, strict=True):
        try:
            written.append(export_peft(load_run(results, run), folder))
        except PeftmarkError as error:
            raise PeftmarkError(f"run {run} cannot be written: {error}") from error
    return written
