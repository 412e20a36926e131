"""What a model predicted of every example: ``<folder of the record>/predictions/<run_id>.npz``, beside its record.

Paired comparisons, calibration and ensembles are computed from them. Compressed arrays, no pickles.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PeftmarkError
from .files import check_regular, read_regular, write_atomically
from .record import RunRecord
from .store import PREDICTIONS, Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

Predictions = Mapping[str, Mapping[str, "NDArray[Any]"]]
"""By test split, then by what it is: ``predicted``, and what else the task's objective keeps. The first axis is the
examples', in their order; of labels these are ``target``, ``probability_true`` and ``probability_max``, too."""

PREDICTED = "predicted"

LENGTHS = "_lengths"
"""Of rows of any number an example: ``predicted`` has all rows, ``predicted_lengths`` how many each example has."""

PREDICTIONS_BYTES = 4 * 2**30
"""More than those of any run have, packed or not."""

_KINDS = "biufU"
"""Of arrays: booleans, numbers and text."""


def predictions_file(record: Path) -> Path:
    """Where the predictions of a record's file lie."""
    return record.parent / PREDICTIONS / f"{record.stem}.npz"


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a file whole or not at all. Equal predictions give equal bytes."""
    import numpy as np

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for split in sorted(predictions):
            for name, values in predictions[split].items():
                data = io.BytesIO()
                np.lib.format.write_array(data, np.ascontiguousarray(values), allow_pickle=False)
                # not np.savez: it writes the time of day into the archive
                archive.writestr(zipfile.ZipInfo(f"{split}/{name}.npy"), data.getvalue(), zipfile.ZIP_DEFLATED)
    write_atomically(path, buffer.getvalue())


def read_predictions(path: Path) -> dict[str, dict[str, NDArray[Any]]]:
    """
    Raises:
        PeftmarkError: where there is no such file, or it is none of predictions (damaged, pickled, of another kind).
    """
    import numpy as np

    found: dict[str, dict[str, NDArray[Any]]] = {}
    try:
        check_regular(path, PREDICTIONS_BYTES)
        with np.load(path, allow_pickle=False) as arrays:
            if sum(part.file_size for part in arrays.zip.infolist()) > PREDICTIONS_BYTES:
                raise ValueError(f"unpacked it has more than {PREDICTIONS_BYTES:,} bytes")
            for key in arrays.files:
                if not key.isprintable():
                    raise ValueError(f"{key!r} is no name")
                split, _, name = key.rpartition("/")
                if not name or name in found.get(split, {}):
                    raise ValueError(f"{key!r} has no name, or is there twice")
                found.setdefault(split, {})[name] = values = arrays[key]
                if not isinstance(values, np.ndarray):
                    raise ValueError(f"{key} is no array")
                if values.dtype.kind not in _KINDS:
                    raise ValueError(f"{key} is of {values.dtype}, which is no number and no text")
    except FileNotFoundError as error:
        raise PeftmarkError(f"{path} is not there: was it run with --no-predictions?") from error
    except OSError as error:
        raise PeftmarkError(f"{path} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged archive raises what zlib, zipfile, struct or numpy like
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise PeftmarkError(f"{path} holds no predictions ({reason})") from error
    for split, of_split in found.items():
        if not split or examples(of_split) is None:
            raise PeftmarkError(f"{path} holds no predictions (those of {split!r} are not one an example)")
    if not found:
        raise PeftmarkError(f"{path} holds no predictions (it is empty)")
    return found


def examples(arrays: Mapping[str, NDArray[Any]]) -> int | None:
    """Of how many examples a split's predictions are; None where they do not agree, or nothing is predicted."""
    counts = set()
    for name, values in arrays.items():
        lengths = arrays.get(f"{name}{LENGTHS}")
        if values.ndim < 1 or (lengths is not None and not _are_lengths(lengths, len(values))):
            return None
        counts.add(len(values if lengths is None else lengths))
    return counts.pop() if PREDICTED in arrays and len(counts) == 1 else None


def _are_lengths(lengths: NDArray[Any], rows: int) -> bool:
    return lengths.ndim == 1 and lengths.dtype.kind in "iu" and bool((lengths >= 0).all()) and lengths.sum() == rows


def predictions_sha256(predictions: Predictions) -> str:
    """Of what is predicted of all splits' examples, by sorted name."""
    digest = hashlib.sha256()
    for split in sorted(predictions):
        digest.update(predictions[split][PREDICTED].tobytes())
    return digest.hexdigest()


def same_predictions(one: Path, other: Path) -> bool:
    """Whether two files hold the same arrays; one that cannot be read is the same as no other."""
    try:
        if read_regular(one, PREDICTIONS_BYTES) == read_regular(other, PREDICTIONS_BYTES):
            return True  # nearly always
        found, others = read_predictions(one), read_predictions(other)
    except (OSError, PeftmarkError):
        return False
    return {split: set(arrays) for split, arrays in found.items()} == {s: set(a) for s, a in others.items()} and all(
        values.dtype == others[split][name].dtype
        and values.shape == others[split][name].shape
        and values.tobytes() == others[split][name].tobytes()
        for split, arrays in found.items()
        for name, values in arrays.items()
    )


def load_predictions(
    results: str | Path, run_ids: str | Iterable[str] | None = None
) -> dict[str, dict[str, dict[str, NDArray[Any]]]]:
    """Predictions by run id, then by test split and name: ``load_predictions("runs")[run_id]["test"]["predicted"]``.

    Args:
        run_ids: one or several; None for all runs of the folder that kept theirs: a damaged file becomes a warning.

    Raises:
        PeftmarkError: where there is no such folder or run, or a run of `run_ids` kept none, or a damaged one.
    """
    store = Store(results)
    if not store.root.is_dir():
        raise PeftmarkError(f"no results folder {results}: name one that holds records")
    files = {run_id: predictions_file(path) for run_id, path in store.paths().items()}
    if run_ids is None:
        found = {}
        for run_id, file in files.items():
            try:
                if file.exists():
                    found[run_id] = read_predictions(file)
            except PeftmarkError as error:
                warnings.warn(str(error), stacklevel=2)
        return found
    wanted = [run_ids] if isinstance(run_ids, str) else list(run_ids)
    for run_id in wanted:
        if run_id not in files:
            raise PeftmarkError(f"no run {run_id} in {results}")
    return {run_id: read_predictions(files[run_id]) for run_id in wanted}


def predictions_problems(record: RunRecord, path: Path) -> Iterator[str]:
    """What cannot be true of the predictions of a record."""
    import numpy as np

    try:
        predictions = read_predictions(path)
    except PeftmarkError as error:
        yield str(error)
        return
    quality = record.quality
    if quality is None:
        yield f"{path}: a run of status {record.status} has no predictions"
        return
    sizes = {split: examples(arrays) for split, arrays in predictions.items()}
    expected = {split: figure.n for split, figure in quality.tests.items()}
    if sizes != expected:
        yield f"{path}: it has {sizes} examples, its record's tests {expected}"
    elif predictions_sha256(predictions) != quality.predictions_sha256:
        yield f"{path}: they are not the predictions of its record (predictions_sha256 differs)"
    for split, arrays in predictions.items():
        for name, values in arrays.items():
            if name.startswith("probability"):
                if not _probabilities(values):
                    yield f"{path}: {split}/{name} are no probabilities"
            elif values.dtype.kind == "f" and not np.isfinite(values).all():
                yield f"{path}: {split}/{name} are not all finite"


def _probabilities(values: NDArray[Any]) -> bool:
    return values.dtype.kind == "f" and bool((values >= 0).all() and (values <= 1).all())  # NaN is neither
