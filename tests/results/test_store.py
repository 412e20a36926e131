"""A results folder: nothing finished is lost, nothing half-written is taken for a record."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftmark.errors import PeftmarkError
from peftmark.results import RunRecord, RunSpec, Store, encode_record, predictions_file, write_atomically
from peftmark.results.cards import card_path

Make = Callable[..., RunRecord]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture
def specs(spec: RunSpec) -> list[RunSpec]:
    return [msgspec.structs.replace(spec, seed=seed) for seed in range(3)]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_write_and_load(store: Store, record: Make, specs: list[RunSpec]) -> None:
    assert store.load() == ([], [])
    records = [record(spec) for spec in specs]
    paths = [store.write(item) for item in records]
    assert [path.name for path in paths] == [f"{spec.run_id}.json" for spec in specs]
    loaded, problems = store.load()
    assert sorted(loaded, key=lambda item: item.spec.seed) == records
    assert problems == []
    assert store.paths() == {spec.run_id: path for spec, path in zip(specs, paths, strict=True)}
    assert oct(paths[0].stat().st_mode & 0o777) == "0o644"


def test_writing_again_replaces(store: Store, record: Make) -> None:
    store.write(record(status="error"))
    store.write(record())
    [loaded], [] = store.load()
    assert loaded.status == "ok"
    assert len(files(store.root)) == 1


def test_records_in_subfolders_are_found_and_replaced_in_place(store: Store, record: Make) -> None:
    written = record(status="error")
    path = store.root / "suite" / "deeper" / f"{written.run_id}.json"
    write_atomically(path, encode_record(written))
    assert store.paths() == {written.run_id: path}
    assert store.write(record(), store.paths()[written.run_id]) == path
    assert files(store.root) == [f"suite/deeper/{written.run_id}.json"]


def test_writing_does_not_list_the_folder(store: Store, record: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100,000 records, one more would take a second."""

    def listed(*arguments: object, **options: object) -> None:
        raise AssertionError("the folder was listed")

    for module, name in ((os, "listdir"), (os, "scandir"), (os, "walk"), (Path, "rglob"), (Path, "iterdir")):
        monkeypatch.setattr(module, name, listed)
    path = store.write(record())
    monkeypatch.undo()
    assert files(store.root) == [path.name]


def test_one_record_in_two_places_counts_once_and_is_the_same_one_everywhere(store: Store, record: Make) -> None:
    """Whatever the folder is called, that in the results folder itself is meant."""
    written = record()
    for folder in ("0", "z"):
        write_atomically(store.root / folder / f"{written.run_id}.json", encode_record(record(status="error")))
    path = store.root / f"{written.run_id}.json"
    write_atomically(path, encode_record(written))
    assert store.load() == ([written], [])
    assert store.paths()[written.run_id] == path


def test_every_damaged_file_is_one_problem_and_nothing_is_lost(
    store: Store, record: Make, specs: list[RunSpec]
) -> None:
    good = record(specs[0])
    store.write(good)
    whole = encode_record(record(specs[1]))
    damaged = {
        "half.json": whole[: len(whole) // 2],
        "empty.json": b"",
        "garbage.json": b"\x00\xff garbage",
        "schema.json": whole.replace(b'"schema_version": 1', b'"schema_version": 9'),
        "id.json": whole.replace(specs[1].run_id.encode(), b"0" * 16),
    }
    for name, data in damaged.items():
        (store.root / name).write_bytes(data)
    (store.root / "folder.json").mkdir()
    before = files(store.root)
    records, problems = store.load()
    assert records == [good]
    assert len(problems) == len(damaged) + 1
    for name in (*damaged, "folder.json"):
        [problem] = [problem for problem in problems if str(store.root / name) in problem]
        assert "\n" not in problem
    assert files(store.root) == before


@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", "a b", "a.json", "costs", "cards", ".c", "Z"]), max_size=3).map(tuple),
        max_size=8,
    ),
    st.lists(st.sampled_from(["1.json", "0.json", "a-1.json", "A.json", ".2.json", ".json", "3.json.tmp", "ä.json"])),
)
@settings(max_examples=60, deadline=None)
def test_files_come_in_the_order_of_paths_by_depth(folders: list[tuple[str, ...]], names: list[str]) -> None:
    """Which of two files of one name counts must not depend on how the folder is walked."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number, parts in enumerate([(), *folders]):
            root.joinpath(*parts).mkdir(parents=True, exist_ok=True)
            for name in names[number % 2 :: 2]:
                root.joinpath(*parts, name).touch()
        (root / "link").symlink_to(root, target_is_directory=True)
        found = sorted(root.rglob("*.json"), key=lambda path: (len(path.parts), path))
        found = [path for path in found if not path.name.startswith(".")]
        inner = [(path, set(path.relative_to(root).parts[:-1])) for path in found]
        store = Store(root)
        assert list(store.run_files()) == [path for path, above in inner if not above & {"costs", "cards"}]
        assert list(store.cost_files()) == [
            path for path in found if path.parent.name == "costs" and not set(path.parts[:-2]) & {"costs", "cards"}
        ]


def test_a_linked_folder_of_costs_is_looked_into(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.json").touch()
    store.root.mkdir()
    (store.root / "costs").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert list(store.cost_files()) == [store.root / "costs" / "x.json"]
    assert list(store.run_files()) == []


def test_what_is_no_file_is_a_problem(store: Store, record: Make, special: Any) -> None:
    path = store.write(record())
    (store.root / "costs").mkdir()
    for name in ("x.json", "costs/y.json"):
        special.make(store.root / name)
    for loaded, name in ((store.load(), "x.json"), (store.load_costs(), "costs/y.json")):
        [problem] = loaded[1]
        assert problem.startswith(f"{store.root / name} cannot be read ({special.reason}")
    assert [loaded.run_id for loaded in store.load()[0]] == [path.stem]


def test_loading_leaves_the_garbage_collector_as_it_was(store: Store, record: Make) -> None:
    path = store.write(record())
    assert gc.isenabled()
    store.load()
    assert gc.isenabled()
    gc.disable()
    try:
        path.write_text("half")
        store.load()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_is_not_a_record_is_left_alone(store: Store, record: Make) -> None:
    store.write(record())
    for name in (
        "cards/methods/lora.json",
        "suite/cards/tasks/x.json",
        "adapters/x.json",
        "costs/x.json",
        "perf/Linux-CPython-3.11-64bit/0001_x.json",
        ".hidden.json",
        "notes.txt",
    ):
        path = store.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not a record")
    records, problems = store.load()
    assert (len(records), problems) == (1, [])


def test_set_aside(store: Store, record: Make) -> None:
    path = store.root / f"{record().run_id}.json"
    write_atomically(path, b"half")
    aside = store.set_aside(path)
    assert aside == path.with_name(f"{path.name}.damaged")
    assert aside.read_bytes() == b"half"
    assert store.load() == ([], [])


def test_two_damaged_files_are_both_kept(store: Store, record: Make) -> None:
    path = store.root / f"{record().run_id}.json"
    kept = []
    for data in (b"first", b"second"):
        write_atomically(path, data)
        kept.append(store.set_aside(path))
    assert [aside.read_bytes() for aside in kept] == [b"first", b"second"]


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, b"old")

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == ["record.json"]


def test_data_are_on_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At no moment does a reader see the file without its whole content."""
    path, seen = tmp_path / "record.json", []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append(("fsync", path.exists())), fsync(handle)))

    def watch(source: str, target: Path) -> None:
        seen.append(("replace", Path(source).read_bytes()))
        assert Path(source).parent == Path(target).parent  # a rename, not a copy
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    write_atomically(path, b"data")
    assert seen == [("fsync", False), ("replace", b"data")]


def test_leftovers_of_a_killed_process_are_removed(store: Store, record: Make) -> None:
    path = store.write(record())
    stem = path.stem
    for name in (
        f".{stem}.json.abcd_12x.tmp",
        f"suite/.{stem}.json.abcdefgh.tmp",
        f"suite/predictions/.{stem}.npz.abcdefgh.tmp",
        f"adapters/.{stem}.safetensors.abcdefgh.tmp",
        f"costs/.{stem}.json.abcdefgh.tmp",
        "cards/methods/.lora.json.abcdefgh.tmp",
        "cards/tasks/.embedded__digits.png.abcdefgh.tmp",
        f"cards/manifests/.{'0' * 64}.json.abcdefgh.tmp",
    ):
        (store.root / name).parent.mkdir(parents=True, exist_ok=True)
        (store.root / name).write_bytes(b"half")
    assert store.load()[1] == []
    store.remove_temporary_files()
    assert files(store.root) == [path.name]


def test_what_is_written_is_a_leftover_when_the_process_is_killed(
    store: Store, record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names are those that `write_atomically` gives."""
    path = store.write(record())

    def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    monkeypatch.setattr(Path, "unlink", killed)
    for target in (path, predictions_file(path), card_path(store.root, "methods", "peft/lora.x")):
        with pytest.raises(KeyboardInterrupt):
            write_atomically(target, b"half")
    monkeypatch.undo()
    assert len(files(store.root)) == 4
    store.remove_temporary_files()
    assert files(store.root) == [path.name]


def test_a_user_s_own_files_are_no_leftovers(store: Store, record: Make) -> None:
    path = store.write(record())
    own = [
        ".draft.tmp",
        "notes/.draft.tmp",
        "notes/.draft.json.abcdefgh.tmp",
        f".{path.stem}.json.tmp",
        f"{path.stem}.json.abcdefgh.tmp",
        f".{path.stem}.json.abcdefghi.tmp",
        "cards/methods/.draft.tmp",
    ]
    for name in own:
        (store.root / name).parent.mkdir(parents=True, exist_ok=True)
        (store.root / name).write_text("mine")
    store.remove_temporary_files()
    assert files(store.root) == sorted([path.name, *own])


@pytest.mark.parametrize("name", ["{}", "suite/{}"])
def test_a_folder_with_a_leftover_s_name_stays(store: Store, record: Make, name: str) -> None:
    folder = store.root / name.format(f".{record().run_id}.json.abcdefgh.tmp")
    folder.mkdir(parents=True)
    store.remove_temporary_files()
    assert folder.is_dir()


def test_the_lock_is_held_by_one_process_at_a_time(store: Store) -> None:
    script = f"""
        from peftmark.errors import PeftmarkError
        from peftmark.results import Store
        try:
            with Store({str(store.root)!r}).lock():
                print("held")
        except PeftmarkError as error:
            print(error)
    """

    def other() -> str:
        command = [sys.executable, "-c", textwrap.dedent(script)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with store.lock():
        assert other() == (
            f"another peftmark command is writing to {store.root}: wait for it, or choose another with --results DIR"
        )
    assert other() == "held"


def test_the_lock_is_given_back_after_an_error(store: Store) -> None:
    with pytest.raises(RuntimeError), store.lock():
        raise RuntimeError
    with store.lock():
        pass


@pytest.mark.parametrize("where", ["below a file", "in /proc"])
def test_a_folder_that_cannot_be_made(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    root = tmp_path / "file" / "results" if where == "below a file" else Path("/proc/peftmark")
    with pytest.raises(PeftmarkError) as error, Store(root).lock():
        pass
    assert str(error.value).startswith(f"cannot write to the results folder {root} (")
    assert str(error.value).endswith("): choose another with --results DIR")


def test_a_read_only_folder(read_only: Path) -> None:
    denied = pytest.raises(PeftmarkError, match=r"cannot write to the results folder .* \(Permission denied\): choose")
    with denied, Store(read_only).lock():
        pass
    assert list(read_only.iterdir()) == []
