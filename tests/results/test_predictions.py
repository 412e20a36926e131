"""What was predicted of every example: written, read, hashed, checked against its record, merged with it."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import peftmark
from peftmark import results as module
from peftmark.errors import PeftmarkError
from peftmark.results import RunRecord, Store, predictions_file, predictions_sha256
from peftmark.results.predictions import examples, read_predictions, write_predictions
from peftmark.results.validation import check_costs, check_predictions, check_runs, merge

Make = Callable[..., RunRecord]
LABELS = np.array([3, 1, 2, 0, 1])
PREDICTIONS = {
    "test": {
        "predicted": LABELS,
        "target": np.array([3, 1, 1, 0, 1]),
        "probability_true": np.array([0.9, 0.5, 0.2, 1.0, 0.4], dtype=np.float32),
        "probability_max": np.array([0.9, 0.5, 0.6, 1.0, 0.4], dtype=np.float32),
    }
}


@pytest.fixture
def kept(record: Make, tmp_path: Path) -> tuple[Path, RunRecord]:
    """A results folder with one record and its predictions."""
    made = record()
    assert made.quality is not None
    quality = msgspec.structs.replace(
        made.quality,
        tests={"test": module.TestFigure(value=made.quality.test, n=5)},
        n_test=5,
        predictions_sha256=predictions_sha256(PREDICTIONS),
    )
    made = msgspec.structs.replace(made, quality=quality)
    path = Store(tmp_path / "runs").write(made)
    write_predictions(predictions_file(path), PREDICTIONS)
    return tmp_path / "runs", made


def lines(root: Path) -> list[str]:
    found = check_predictions(Store(root), check_runs(Store(root)).records).problems
    assert all("\n" not in line for line in found)
    return found


def same(one: Any, other: Any) -> bool:
    return {s: list(a) for s, a in one.items()} == {s: list(a) for s, a in other.items()} and all(
        np.array_equal(one[s][name], other[s][name]) and one[s][name].dtype == other[s][name].dtype
        for s in one
        for name in one[s]
    )


def test_the_hash_is_of_the_labels_by_split_name() -> None:
    by_hand = hashlib.sha256(struct.pack("<5q", 3, 1, 2, 0, 1)).hexdigest()
    base, new = {"predicted": np.array([3, 1, 2])}, {"predicted": np.array([0, 1])}
    assert predictions_sha256({"new": new, "base": base}) == by_hand
    assert predictions_sha256({"base": {**base, "target": np.zeros(3)}, "new": new}) == by_hand
    assert predictions_sha256({"new": base, "base": new}) != by_hand
    assert predictions_sha256({"base": {"predicted": np.array([[3, 1, 2]] * 2).T[:, 0]}, "new": new}) == by_hand


SPLITS = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_/-]{0,9}", fullmatch=True).filter(lambda name: not name.endswith("/")),
    st.integers(1, 6).flatmap(
        lambda n: st.fixed_dictionaries(
            {"predicted": arrays.arrays(np.int64, n)},
            optional={
                "target": arrays.arrays(st.sampled_from([np.int64, np.float32, np.uint8]), (n, 3)),
                "probability_max": arrays.arrays(np.float32, n, elements=st.floats(0, 1, width=32)),
            },
        )
    ),
    min_size=1,
    max_size=3,
)


@given(SPLITS)
def test_what_is_read_is_what_was_written(tmp_path_factory: pytest.TempPathFactory, predictions: Any) -> None:
    folder = tmp_path_factory.mktemp("predictions")
    write_predictions(folder / "a.npz", predictions)
    read = read_predictions(folder / "a.npz")
    assert {split: set(of_split) for split, of_split in read.items()} == {s: set(a) for s, a in predictions.items()}
    for split, of_split in predictions.items():
        for name, values in of_split.items():
            np.testing.assert_array_equal(read[split][name], values)
            assert read[split][name].dtype == values.dtype
    assert predictions_sha256(read) == predictions_sha256(predictions)
    write_predictions(folder / "b.npz", predictions)
    assert (folder / "a.npz").read_bytes() == (folder / "b.npz").read_bytes()


def test_rows_of_any_number_an_example() -> None:
    rows, lengths = np.zeros((3, 2)), np.array([2, 0, 1])
    assert examples({"predicted": rows, "predicted_lengths": lengths, "target": np.zeros(3)}) == 3
    assert examples({"predicted": rows, "predicted_lengths": np.array([2, 0])}) is None  # two rows of three
    assert examples({"predicted": rows, "target": np.zeros(2)}) is None
    assert examples({"target": np.zeros(2)}) is None


def test_they_lie_beside_their_record(kept: tuple[Path, RunRecord]) -> None:
    root, record = kept
    path = root / "predictions" / f"{record.run_id}.npz"
    assert path.is_file()
    assert lines(root) == []
    loaded = peftmark.load_predictions(root)
    assert list(loaded) == [record.run_id]
    assert same(loaded[record.run_id], PREDICTIONS)
    assert same(peftmark.load_predictions(root, record.run_id)[record.run_id], PREDICTIONS)
    assert [each.run_id for each in Store(root).load()[0]] == [record.run_id]


def test_a_record_in_a_sub_folder_has_them_there(kept: tuple[Path, RunRecord]) -> None:
    root, record = kept
    suite = root / "suite"
    (suite / "predictions").mkdir(parents=True)
    (root / f"{record.run_id}.json").rename(suite / f"{record.run_id}.json")
    assert len(lines(root)) == 1
    (root / "predictions" / f"{record.run_id}.npz").rename(suite / "predictions" / f"{record.run_id}.npz")
    assert lines(root) == []
    assert list(peftmark.load_predictions(root)) == [record.run_id]


@pytest.mark.parametrize(
    ("run_id", "message"),
    [("nothing", "no run nothing in"), (None, "is not there: was it run with --no-predictions?")],
)
def test_what_is_not_there(kept: tuple[Path, RunRecord], run_id: str | None, message: str) -> None:
    root, record = kept
    predictions_file(root / f"{record.run_id}.json").unlink()
    assert peftmark.load_predictions(root) == {}
    with pytest.raises(PeftmarkError, match=message):
        peftmark.load_predictions(root, [run_id or record.run_id])
    with pytest.raises(PeftmarkError, match="no results folder"):
        peftmark.load_predictions(root / "nowhere")


def archive(**members: Any) -> bytes:
    """A zip of these; ``__`` in a name stands for a slash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, data in members.items():
            made.writestr(name.replace("__", "/") + ".npy", data)
    return buffer.getvalue()


def npy(values: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def doubled(name: str, data: bytes) -> bytes:
    """A zip that has a member twice."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate name"):
            made.writestr(name, data)
    return buffer.getvalue()


GOOD = npy(LABELS)
WHOLE = archive(test__predicted=GOOD, test__target=GOOD)
DAMAGE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "holds no predictions"),
    "text": (b"hello", "holds no predictions"),
    "json": (b'{"a": 1}', "holds no predictions"),
    "an array alone": (GOOD, "holds no predictions"),
    "a pickle": (npy(np.array([{}], dtype=object), allow_pickle=True), "holds no predictions"),
    "pickled objects": (archive(test__predicted=npy(np.array([{}, 1], dtype=object), allow_pickle=True)), "holds no"),
    "nothing in it": (archive(), "it is empty"),
    "cut in the middle": (WHOLE[: len(WHOLE) // 2], "holds no predictions"),
    "a byte short": (WHOLE[:-1], "holds no predictions"),
    "a byte changed": (WHOLE.replace(LABELS.tobytes(), LABELS[::-1].tobytes(), 1), "holds no predictions"),
    "members that are no arrays": (archive(test__predicted=b"hello"), "holds no predictions"),
    "an array cut off": (archive(test__predicted=GOOD[:-8]), "holds no predictions"),
    "no split": (archive(predicted=GOOD), "those of '' are not one an example"),
    "no predictions": (archive(test__target=GOOD), "those of 'test' are not one an example"),
    "a number": (archive(test__predicted=npy(np.array(3))), "those of 'test' are not one an example"),
    "different lengths": (archive(test__predicted=GOOD, test__target=npy(LABELS[:4])), "are not one an example"),
    "a member twice": (doubled("test/predicted.npy", GOOD), "'test/predicted' has no name, or is there twice"),
    "an array without a name": (archive(test__predicted=GOOD, test__=GOOD), "'test/' has no name, or is there twice"),
    "fewer examples": (archive(test__predicted=npy(LABELS[:4])), "it has {'test': 4} examples"),
    "another split": (archive(new__predicted=GOOD), "its record's tests {'test': 5}"),
    "one split more": (archive(test__predicted=GOOD, new__predicted=GOOD), "its record's tests {'test': 5}"),
    "other labels": (archive(test__predicted=npy(LABELS[::-1].copy())), "predictions_sha256 differs"),
    "labels of another type": (archive(test__predicted=npy(LABELS.astype(np.int32))), "predictions_sha256 differs"),
    "above one": (archive(test__predicted=GOOD, test__probability_max=npy(LABELS * 1.0)), "are no probabilities"),
    "not a number": (archive(test__predicted=GOOD, test__probability_true=npy(LABELS * np.nan)), "no probabilities"),
    "infinite": (archive(test__predicted=GOOD, test__target=npy(np.full(5, np.inf))), "test/target are not all finite"),
    "a name of two lines": (
        archive(**{"test/predicted": GOOD, "test/probability\n": GOOD}),
        "'test/probability\\n' is",
    ),
    "dates": (archive(test__predicted=npy(LABELS.astype("M8[s]"))), "is of datetime64[s], which is no number"),
    "records": (archive(test__predicted=npy(np.zeros(5, dtype=[("a", "i4")]))), "which is no number and no text"),
    "text for lengths": (archive(test__predicted=GOOD, test__predicted_lengths=npy(np.array(["2", "3"]))), "one an ex"),
    "negative lengths": (archive(test__predicted=GOOD, test__predicted_lengths=npy(np.array([6, -1]))), "one an ex"),
    "lengths in rows": (archive(test__predicted=GOOD, test__predicted_lengths=npy(np.array([[5]]))), "one an example"),
    "half lengths": (
        archive(test__predicted=GOOD, test__predicted_lengths=npy(np.array([2.5, 2.5]))),
        "one an example",
    ),
    "text for probabilities": (
        archive(test__predicted=GOOD, test__probability_max=npy(LABELS.astype(str))),
        "are no probabilities",
    ),
    "whole numbers": (archive(test__predicted=GOOD, test__probability_true=npy(LABELS * 0)), "are no probabilities"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_line(kept: tuple[Path, RunRecord], kind: str) -> None:
    root, record = kept
    data, message = DAMAGE[kind]
    path = predictions_file(root / f"{record.run_id}.json")
    path.write_bytes(data)
    [line] = lines(root)
    assert line.startswith(f"{path}")
    assert message in line


@given(st.data())
def test_no_damage_is_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whichever bytes are changed, cut off or left out."""
    path = tmp_path_factory.mktemp("damaged") / "a.npz"
    write_predictions(path, PREDICTIONS)
    found = bytearray(path.read_bytes())
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(found) - 1), st.integers(0, 255)), max_size=4)):
        found[at] = value
    start, stop = sorted(data.draw(st.tuples(st.integers(0, len(found)), st.integers(0, len(found)))))
    path.write_bytes(found[:start] + found[stop:] if data.draw(st.booleans()) else found)
    read, message = {}, str(path)
    try:
        read = read_predictions(path)
    except PeftmarkError as error:
        message = str(error)
    assert message.startswith(str(path)) and "\n" not in message
    assert all(examples(of_split) is not None for of_split in read.values())


def test_those_of_no_record_and_of_a_failed_one(kept: tuple[Path, RunRecord], record: Make) -> None:
    root, made = kept
    write_predictions(root / "predictions" / "stray.npz", PREDICTIONS)
    [line] = lines(root)
    assert line.endswith("stray.npz: there is no sound record stray.json that it belongs to")
    (root / "predictions" / "stray.npz").unlink()
    Store(root).write(record(status="oom", params=None, storage=None))
    assert lines(root) == [f"{predictions_file(root / f'{made.run_id}.json')}: a run of status oom has no predictions"]


def test_they_are_merged_with_their_record(kept: tuple[Path, RunRecord], tmp_path: Path) -> None:
    root, record = kept
    theirs, ours = Store(root), Store(tmp_path / "ours")
    merged = merge(theirs, ours, check_runs(theirs), check_costs(theirs))
    assert (merged.runs, merged.predictions, merged.problems) == (1, 1, [])
    assert same(peftmark.load_predictions(ours.root)[record.run_id], PREDICTIONS)
    again = merge(theirs, ours, check_runs(theirs), check_costs(theirs))
    assert (again.runs, again.known, again.predictions) == (0, 1, 0)


def test_not_with_another_record_of_the_same_spec(kept: tuple[Path, RunRecord], tmp_path: Path) -> None:
    root, record = kept
    theirs, ours = Store(root), Store(tmp_path / "ours")
    assert record.quality is not None
    quality = msgspec.structs.replace(record.quality, predictions_sha256="0" * 64)
    ours.write(msgspec.structs.replace(record, quality=quality))
    merged = merge(theirs, ours, check_runs(theirs), check_costs(theirs))
    assert (merged.runs, merged.predictions) == (0, 0)
    assert "it is kept" in merged.problems[0]
    assert peftmark.load_predictions(ours.root) == {}


def test_other_predictions_of_the_same_record_are_kept_and_said(kept: tuple[Path, RunRecord], tmp_path: Path) -> None:
    """Packed otherwise, they are the same; otherwise in a probability, they are not."""
    root, record = kept
    theirs, ours = Store(root), Store(tmp_path / "ours")

    def merging() -> tuple[int, list[str]]:
        merged = merge(theirs, ours, check_runs(theirs), check_costs(theirs))
        return merged.predictions, merged.problems

    assert merging() == (1, [])
    target = ours.root / "predictions" / f"{record.run_id}.npz"
    np.savez(target, **{f"test/{name}": values for name, values in PREDICTIONS["test"].items()})
    assert merging() == (0, [])
    for other in ({**PREDICTIONS["test"], "target": LABELS}, {"predicted": LABELS}):
        write_predictions(target, {"test": other})
        held = target.read_bytes()
        copied, [problem] = merging()
        assert (copied, target.read_bytes()) == (0, held)
        assert problem.endswith(f"{target} has other predictions of run {record.run_id}; it is kept")
    target.write_bytes(b"half")
    assert len(merging()[1]) == 1


def test_a_damaged_record_that_is_kept_gets_no_predictions(kept: tuple[Path, RunRecord], tmp_path: Path) -> None:
    root, record = kept
    theirs, ours = Store(root), Store(tmp_path / "ours")
    ours.root.mkdir()
    (ours.root / f"{record.run_id}.json").write_text("{")
    merged = merge(theirs, ours, check_runs(theirs), check_costs(theirs))
    assert (merged.runs, merged.predictions) == (0, 0)
    assert not (ours.root / "predictions").exists()


def test_a_damaged_file_does_not_keep_the_others_from_being_read(kept: tuple[Path, RunRecord]) -> None:
    root, made = kept
    other = root / "other.json"
    other.write_bytes((root / f"{made.run_id}.json").read_bytes())
    predictions_file(other).write_bytes(b"hello")
    with pytest.warns(UserWarning, match=r"other\.npz holds no predictions"):
        assert list(peftmark.load_predictions(root)) == [made.run_id]
    with pytest.raises(PeftmarkError, match=r"other\.npz holds no predictions"):
        peftmark.load_predictions(root, "other")
