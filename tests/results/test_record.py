"""The record: its identity, its JSON, and what is refused."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftmark.errors import PeftmarkError
from peftmark.results import (
    BackboneSpec,
    MethodSpec,
    ProtocolSpec,
    RunRecord,
    RunSpec,
    TaskSpec,
    TuningSpec,
    canonical_json,
    decode_record,
    encode_record,
)

Make = Callable[..., RunRecord]
replace = msgspec.structs.replace

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
configs = st.dictionaries(st.text(max_size=6), plain, max_size=4)


def spec_with(config: dict[str, Any]) -> RunSpec:
    return RunSpec(
        method=MethodSpec(name="m", version=1, config=config),
        backbone=BackboneSpec(name="b", weights="random"),
        task=TaskSpec(name="t", version=1, split_sha256="0"),
        protocol=ProtocolSpec(name="p", version=1),
    )


def test_run_id_is_the_hash_of_the_canonical_json(spec: RunSpec) -> None:
    """Written out by hand: it is what other programs must be able to compute."""
    text = (
        '{"backbone":{"name":"embedded/vit","weights":"' + "ab" * 32 + '"},'
        '"method":{"config":{"alpha":8.0,"rank":8,"targets":["q","v"]},"name":"lora","version":2},'
        '"protocol":{"name":"embedded","overrides":{},"version":1},"seed":3,'
        '"task":{"name":"embedded/digits","split_sha256":"' + "cd" * 32 + '","version":1},"trial":0}'
    )
    assert canonical_json(spec).decode() == text
    assert spec.run_id == hashlib.sha256(text.encode()).hexdigest()[:16]


@given(configs, configs, st.integers(0, 2**63 - 1), st.none() | st.text(max_size=4), st.booleans())
def test_the_id_made_of_parts_is_that_of_the_whole(
    config: dict[str, Any], overrides: dict[str, Any], seed: int, text: str | None, trial: bool
) -> None:
    points = {"points_sha256": text, "study": seed % 3 if trial else None, "space": {text or "a": "b"}}
    tuning = TuningSpec(stage="trial", tuner=text or "halton", trials=15, studies=3, learning_rate=0.1, **points)
    spec = replace(
        spec_with(config),
        task=TaskSpec(name=text or "t", version=1, split_sha256="0", preprocessing=text),
        protocol=ProtocolSpec(name="p", version=1, overrides=overrides),
        seed=seed,
        trial=seed % 5,
        tuning=tuning if trial else msgspec.UNSET,
    )
    assert spec.id == hashlib.sha256(canonical_json(spec)).hexdigest()[:16]


class Lazy(types.ModuleType):
    """A module that has whatever it is asked for."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"asked for {name}")


def test_a_spec_goes_to_a_worker_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """pickle looks for a value that has a name, as UNSET has, in every module: that takes .6 ms and loads some."""
    spec = spec_with({})
    monkeypatch.setattr(sys, "modules", {"lazy": Lazy("lazy"), **sys.modules})
    again = pickle.loads(pickle.dumps(spec))
    assert again == spec and again.tuning is msgspec.UNSET


@given(configs, st.randoms())
def test_run_id_does_not_depend_on_the_order_of_keys(config: dict[str, Any], random: Any) -> None:
    items = list(config.items())
    random.shuffle(items)
    assert spec_with(dict(items)).run_id == spec_with(config).run_id


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"trial": 1},
        {"method.name": "dora"},
        {"method.version": 3},
        {"method.config": {"rank": 8, "targets": ["q", "v"]}},
        {"method.config": {"rank": 8, "targets": ["v", "q"], "alpha": 8.0}},
        {"backbone.name": "embedded/clip"},
        {"backbone.weights": "random"},
        {"task.name": "embedded/count"},
        {"task.version": 2},
        {"task.split_sha256": "0"},
        {"task.preprocessing": "squash-bicubic-224"},
        {"protocol.name": "vtab"},
        {"protocol.version": 2},
        {"protocol.overrides": {"epochs": 2}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_is_part_of_the_identity(spec: RunSpec, change: dict[str, Any]) -> None:
    [(path, value)] = change.items()
    part, _, name = path.rpartition(".")
    changed = replace(spec, **{part: replace(getattr(spec, part), **{name: value})} if part else {name: value})
    assert changed.run_id != spec.run_id


def test_an_id_is_hashed_once_and_goes_with_its_spec_alone(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    first, name = replace(spec, seed=5), replace(spec, seed=5).run_id
    assert first.run_id == name and first == replace(spec, seed=5)
    copied, other = pickle.loads(pickle.dumps(first)), replace(first, seed=6)
    monkeypatch.setattr(hashlib, "sha256", None)
    assert first.run_id == name
    monkeypatch.undo()
    assert copied == first and copied.run_id == name
    assert other.run_id != name
    assert "id" not in msgspec.to_builtins(first)


@pytest.mark.parametrize("value", [8.0, True, "8", 9])
def test_what_is_expected_is_taken_for_it_only_where_it_is_the_same(record: Make, spec: RunSpec, value: Any) -> None:
    """Python says 8 == 8.0 and 1 == True; their JSON, and so their ids, differ."""
    expected = replace(spec, method=replace(spec.method, config={"rank": 8 if value is not True else 1}))
    another = replace(spec, method=replace(spec.method, config={"rank": value}))
    forged = encode_record(record(another, run_id=expected.run_id))
    with pytest.raises(PeftmarkError, match=f"run_id {expected.run_id} is not that of its spec .{another.run_id}"):
        decode_record(forged, "x", expected)
    true = record(another)
    assert decode_record(encode_record(true), "x", expected) == true


def test_what_is_expected_is_not_hashed_again(record: Make, spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_record(record())
    assert spec.run_id
    monkeypatch.setattr(hashlib, "sha256", None)
    assert decode_record(data, "x", spec).run_id == spec.run_id


def test_no_preprocessing_is_no_part_of_the_identity(spec: RunSpec) -> None:
    """Records from before there was one keep their ids."""
    assert b"preprocessing" not in canonical_json(spec)


def test_a_spec_is_frozen(spec: RunSpec) -> None:
    with pytest.raises(AttributeError):
        spec.seed = 1  # type: ignore[misc]
    with pytest.raises(AttributeError):
        spec.method.version = 1  # type: ignore[misc]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # `record` is a function
@given(config=configs)
def test_round_trip(record: Make, config: dict[str, Any]) -> None:
    written = record(spec_with(config))
    data = encode_record(written)
    assert decode_record(data, "x") == written
    assert decode_record(data, "x").spec.run_id == json.loads(data)["run_id"]


@pytest.mark.parametrize("status", ["oom", "diverged", "timeout", "unsupported", "error", "cancelled"])
def test_round_trip_of_failures(record: Make, status: str) -> None:
    failed = record(status=status)
    assert decode_record(encode_record(failed), "x") == failed


def test_a_record_is_readable_json_with_units_in_the_names(record: Make) -> None:
    data = encode_record(record())
    assert data.endswith(b"}\n")
    assert b'\n "run_id": ' in data
    parsed = json.loads(data)
    assert set(parsed["time_s"]) == {"setup", "data", "train", "evaluation", "tuning"}
    assert parsed["storage"] == {"adapter_bytes": 240}
    assert parsed["error"] is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_have_are_refused(record: Make, spec: RunSpec, bad: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        _ = spec_with({"alpha": bad}).run_id
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_record(record(quality=replace(record().quality, test=bad)))


def damage(record: RunRecord, **changes: Any) -> bytes:
    return json.dumps({**json.loads(encode_record(record)), **changes}).encode()


def test_damaged_records_name_the_file(record: Make) -> None:
    whole = record()
    cases = {
        encode_record(whole)[:200]: "f.json is not a record: ",
        b"": "f.json is not a record: ",
        b"\xff\xfe\x00": "f.json is not a record: ",
        b"null": "f.json is not a record: ",
        b"{}": "f.json is not a record: ",
        b'{"spec": {"method": {"config": {"a": ' + b"[" * 100_000: "f.json is not a record: ",
        damage(whole, status="fine"): "f.json is not a record: ",
        damage(whole, extra=1): "f.json is not a record: ",
        damage(whole, schema_version=2): "f.json has schema version 2; this peftmark reads 1",
        damage(whole, run_id="0" * 16): f"f.json: run_id {'0' * 16} is not that of its spec ({whole.run_id})",
        damage(whole, quality=None): "f.json: a record has quality if and only if its status is ok",
        damage(whole, status="error"): "f.json: a record has quality if and only if its status is ok",
    }
    for data, message in cases.items():
        with pytest.raises(PeftmarkError) as error:
            decode_record(data, "f.json")
        assert str(error.value).startswith(message), data[:80]
        assert "\n" not in str(error.value)


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [1, value] if level % 2 else {"a": 1, "b": value}
    return value


@pytest.mark.parametrize("place", ["config", "overrides", "found"])
def test_what_is_nested_too_deep_is_no_record(record: Make, place: str) -> None:
    """980 levels are few enough to be decoded, and too many for all that comes after."""

    def at(levels: int) -> bytes:
        found = json.loads(encode_record(record()))
        table = found if place == "found" else found["spec"]["method" if place == "config" else "protocol"]
        table[place] = {"x": nested(levels - 1)}
        found["run_id"] = msgspec.convert(found["spec"], RunSpec).id if levels < 100 else found["run_id"]
        return json.dumps(found).encode()

    assert decode_record(at(32), "f.json")
    for levels in (33, 300, 600, 900):
        with pytest.raises(PeftmarkError, match=r"^f\.json is not a record: it is nested more than 32 levels deep$"):
            decode_record(at(levels), "f.json")
    text = at(33).replace(b'{"a": 1', b"[" * 980 + b"]" * 980 + b', {"a": 1', 1)
    with pytest.raises(PeftmarkError, match=r"^f\.json is not a record: "):
        decode_record(text, "f.json")


@pytest.mark.parametrize("version", [0, 2, 7])
def test_another_schema_is_named_even_where_its_fields_differ(record: Make, version: int) -> None:
    data = damage(record(), schema_version=version, a_new_field=1)
    with pytest.raises(PeftmarkError, match=rf"f\.json has schema version {version}; this peftmark reads 1"):
        decode_record(data, "f.json")


@given(st.binary(max_size=64))
def test_bytes_are_a_record_or_a_problem(data: bytes) -> None:
    with pytest.raises(PeftmarkError):
        decode_record(data, "f.json")


def test_importing_results_imports_no_torch() -> None:
    script = (
        "import peftmark.results, sys; sys.exit(', '.join({'torch', 'pandas', 'numpy'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
