"""Runs as folders for the Hugging Face Hub: a model card, its results, the record, and the adapter where there is one.

Nothing is uploaded: ``hf upload REPOSITORY FOLDER`` does that.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import PeftmarkError
from ...results import ADAPTERS, RunRecord, Store, decode_record, encode_record
from ...results.files import holds, read_regular
from ...results.store import files_below
from ...results.tuning import search_key, tuning_of
from ..subjects import Subjects, slug
from ..tuning.searches import make_searches
from .card import TestedRun, eval_entries, model_card
from .places import new_file

ADAPTER = "adapter.safetensors"


def write_model_cards(results: Path, runs: Sequence[str], out: Path) -> list[Path]:
    """Arguments, result and errors are those of all formats.

    Args:
        results: a folder of records, with their cards.
        runs: ids of runs that were tested.
        out: the folder of the only run, or for each of several one of its id in it. It may hold other files; one that
            is there with other contents is never overwritten.

    Returns:
        What was written, or was there.

    Raises:
        PeftmarkError: where a run is not known, or has no test figure, or `out` cannot or must not be written.
    """
    if not runs:
        raise PeftmarkError("--format hub: name the RUN, by the id that its record's file is named after")
    if not results.is_dir():
        raise PeftmarkError(f"no results folder {results}: run `peftmark run` first, or name another with --results")
    _check_hub()
    runs = tuple(dict.fromkeys(runs))
    records = _records(results, runs)
    adapters = {path.stem: path for path in reversed(list(files_below(results, ADAPTERS, ".safetensors")))}
    subjects, seeds = Subjects(results, records), _seeds(results, records)
    files: dict[Path, bytes | Path] = {}
    for record in records:
        folder = out / record.run_id if len(runs) > 1 else out
        adapter = _adapter(record, adapters)
        files |= {folder / name: data for name, data in _files(record, subjects, seeds, adapter is not None).items()}
        files |= {folder / ADAPTER: adapter} if adapter else {}
    _write(files)
    return list(files)


def _check_hub() -> None:
    try:
        from huggingface_hub import eval_result_entries_to_yaml  # noqa: F401
    except ImportError as error:
        raise PeftmarkError("--format hub needs huggingface_hub 1.4: pip install 'peftmark[export]'") from error


def _records(results: Path, runs: Sequence[str]) -> list[RunRecord]:
    """
    Raises:
        PeftmarkError: on ids that no record has, and on runs without a test figure.
    """
    paths = Store(results).paths()
    if unknown := [run for run in runs if run not in paths]:
        raise PeftmarkError(
            f"no record of {', '.join(unknown)} in {results}: a record's file is named after its run's id"
        )
    records = []
    for run in runs:
        try:
            records.append(decode_record(read_regular(paths[run]), paths[run]))
        except OSError as error:
            raise PeftmarkError(f"{paths[run]} cannot be read ({error.strerror})") from error
    refused = [f"{record.run_id} {_why_not(record)}" for record in records if record.quality is None]
    if refused:
        raise PeftmarkError(f"a model card is of a run that was tested: {'; '.join(refused)}")
    return records


def _why_not(record: RunRecord) -> str:
    if record.spec.is_trial:
        return "is a search's trial, which sees no test split (export the final run of what was chosen)"
    reason = f" in {record.error.phase}: {record.error.message[:200]}" if record.error else ""
    return f"ended as {record.status}{reason}"


def _seeds(results: Path, records: Sequence[RunRecord]) -> Mapping[str, tuple[int, ...]]:
    """Of the final runs of each search, by its key: a command repeats all of it."""
    if all(tuning_of(record.spec) is None for record in records):
        return {}
    searches, _ = make_searches(Store(results).load()[0])
    return {key: tuple(search.seeds) for key, search in searches.items()}


def _adapter(record: RunRecord, adapters: Mapping[str, Path]) -> Path | None:
    """The run's own, if it is a file as long as its record says."""
    path = adapters.get(record.run_id)
    if path is None or record.storage is None or not path.is_file():
        return None
    return path if path.stat().st_size == record.storage.adapter_bytes else None


def _files(
    record: RunRecord, subjects: Subjects, seeds: Mapping[str, tuple[int, ...]], adapter: bool
) -> dict[str, bytes]:
    """By their places in a run's folder."""
    import yaml
    from huggingface_hub import eval_result_entries_to_yaml

    assert record.quality is not None
    spec = record.spec
    run = TestedRun(
        record,
        record.quality,
        subjects.methods[spec.method.name],
        subjects.tasks[spec.task.name],
        subjects.backbones[spec.backbone.name],
        seeds.get(search_key(spec), ()) if tuning_of(spec) else (),
        adapter,
    )
    entries = yaml.safe_dump(eval_result_entries_to_yaml(eval_entries(run)), sort_keys=False, allow_unicode=True)
    return {
        "README.md": str(model_card(run)).encode(),
        f".eval_results/{slug(spec.task.name)}.yaml": entries.encode(),
        f"{record.run_id}.json": encode_record(record),
    }


def _write(files: Mapping[Path, bytes | Path]) -> None:
    """What is not there yet, once it is known that nothing else is in the way."""
    missing = [path for path, contents in files.items() if not _is_there(path, contents)]
    for path in missing:
        if os.path.lexists(path):
            raise PeftmarkError(f"{path} is there with other contents, and is not overwritten: choose another --out")
    for path in missing:
        contents = files[path]
        with new_file(path) as file:
            if isinstance(contents, bytes):
                file.write(contents)
            else:
                with contents.open("rb") as source:
                    shutil.copyfileobj(source, file)


def _is_there(path: Path, contents: bytes | Path) -> bool:
    if isinstance(contents, bytes):
        return holds(path, contents)
    return path.is_file() and filecmp.cmp(contents, path, shallow=False)
