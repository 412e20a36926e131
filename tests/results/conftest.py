"""Records made up for the results tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from peftmark.results import (
    BackboneSpec,
    Env,
    ErrorInfo,
    MethodSpec,
    Params,
    ProtocolSpec,
    Quality,
    RunRecord,
    RunSpec,
    Storage,
    TaskSpec,
    TestFigure,
    Time,
)

SPEC = RunSpec(
    method=MethodSpec(name="lora", version=2, config={"rank": 8, "targets": ["q", "v"], "alpha": 8.0}),
    backbone=BackboneSpec(name="embedded/vit", weights="ab" * 32),
    task=TaskSpec(name="embedded/digits", version=1, split_sha256="cd" * 32),
    protocol=ProtocolSpec(name="embedded", version=1),
    trial=0,
    seed=3,
)

QUALITY = Quality(
    metric="accuracy",
    validation=90.0,
    test=87.5,
    tests={"test": TestFigure(value=87.5, n=8)},
    n_test=8,
    predictions_sha256="ef" * 32,
    curve=[{"epoch": 1, "train_loss": 0.5, "learning_rate": 0.001}],
)

ENV = Env(
    hardware_class="cpu:a cpu",
    device="cpu",
    torch="2.6.0",
    python="3.11.7",
    packages={"timm": "1.0"},
    git_sha=None,
    dirty=None,
    threads=1,
)


def make_record(spec: RunSpec = SPEC, **changes: Any) -> RunRecord:
    """A record with status ok, or with another and an error."""
    ok = changes.get("status", "ok") == "ok"
    record = RunRecord(
        schema_version=1,
        run_id=spec.run_id,
        spec=spec,
        status="ok",
        time_s=Time(setup=0.1, train=1.5),
        env=ENV,
        created="2026-11-24T05:00:00+00:00",
        error=None if ok else ErrorInfo(phase="train", type="Diverged", message="the loss is nan"),
        quality=QUALITY if ok else None,
        params=Params(trainable=20, trainable_without_head=10, stored=20, added_at_inference=0, total=120),
        storage=Storage(adapter_bytes=240),
    )
    return msgspec.structs.replace(record, **changes)


@pytest.fixture
def record() -> Callable[..., RunRecord]:
    return make_record


@pytest.fixture
def spec() -> RunSpec:
    return SPEC
