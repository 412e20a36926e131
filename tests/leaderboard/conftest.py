"""Records made up for the board: `results` is a folder that a test fills with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from peftmark.leaderboard import build_board
from peftmark.leaderboard.accuracy.build import make_board
from peftmark.leaderboard.accuracy.table import Board, Row, Table
from peftmark.leaderboard.costs.build import make_efficiency
from peftmark.leaderboard.costs.sheet import CostRow, CostSheet, Efficiency
from peftmark.leaderboard.subjects import Subjects
from peftmark.results import (
    BackboneSpec,
    Card,
    Compute,
    CostRecord,
    CostSpec,
    Env,
    ErrorInfo,
    InferenceSpeed,
    Memory,
    MemoryBreakdown,
    MemoryCost,
    MethodSpec,
    Params,
    PhaseCost,
    ProtocolSpec,
    Quality,
    RunRecord,
    RunSpec,
    Speed,
    Storage,
    Store,
    TaskSpec,
    TestFigure,
    Time,
    Timing,
    TrialFigure,
    TuningSpec,
    VariantFigure,
    write_card,
)

from .searching import Searching

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63606060000000040001f61738550000000049454e44ae426082"
)
"""A PNG of one pixel."""

BACKBONE_SIZE = 1_000_000


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _timing(median: float) -> Timing:
    return Timing(median=median, q1=median - 1, q3=median + 2, samples=[median - 2, median, median, median + 3])


ENV = Env(
    hardware_class="cpu:two cores",
    device="cpu",
    torch="2.14.1",
    python="3.11.9",
    packages={"timm": "1.0"},
    git_sha="0123456789abcdef",
    dirty=True,
    threads=1,
)


class Results(Searching):
    """A results folder, written by the package's own store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.records: list[RunRecord] = []
        self.costs: list[CostRecord] = []

    def run(
        self,
        method: str,
        task: str,
        test: float | None = None,
        *,
        seed: int = 0,
        config: Mapping[str, Any] | None = None,
        params: int = 1_000,
        head: int = 500,
        tests: Mapping[str, float] | None = None,
        metric: str = "accuracy",
        status: Any = None,
        message: str = "it cannot",
        overrides: Mapping[str, Any] | None = None,
        deviation: str | None = None,
        backbone: str = "embedded/vit",
        weights: str | None = None,
        method_version: int = 1,
        task_version: int = 1,
        split: str = "split",
        trial: int = 0,
        data: str = "data",
        ranks: Mapping[int, tuple[float, float]] | None = None,
        phases: Sequence[PhaseCost] = (),
        found: Mapping[str, Any] | None = None,
        unit: str = "percent",
        higher_is_better: bool = True,
        tuning: TuningSpec | None = None,
        validation: float | None = None,
        seconds: float = 90.0,
    ) -> RunRecord:
        """Write one record: ok if it has a test figure, or as a trial a validation figure; else of the status given."""
        spec = RunSpec(
            method=MethodSpec(name=method, version=method_version, config=dict(config or {})),
            backbone=BackboneSpec(name=backbone, weights=weights or _sha(backbone)),
            task=TaskSpec(name=task, version=task_version, split_sha256=_sha(split + task)),
            protocol=ProtocolSpec(name="embedded", version=1, overrides=dict(overrides or {})),
            trial=trial,
            seed=seed,
            tuning=tuning or UNSET,
        )
        figure = None
        if spec.is_trial and validation is not None:
            figure = TrialFigure(
                metric=metric,
                validation=validation,
                predictions_sha256=_sha(f"{method}{task}{trial}"),
                unit=unit,
                higher_is_better=higher_is_better,
            )
        quality = None
        if test is not None:
            quality = Quality(
                metric=metric,
                validation=50.0,
                test=test,
                tests={name: TestFigure(value=value, n=50) for name, value in (tests or {"test": test}).items()},
                n_test=100,
                predictions_sha256=_sha(f"{method}{task}{seed}"),
                unit=unit,
                higher_is_better=higher_is_better,
                curve=[{"epoch": e, "train_loss": 2.0 / e, "learning_rate": 0.001} for e in (1, 2, 3)],
                variants=[
                    VariantFigure(axis="rank", value=rank, validation=validation, test=test)
                    for rank, (validation, test) in (ranks or {}).items()
                ],
            )
        counts = Params(
            trainable=params + head,
            trainable_without_head=params,
            stored=params + head,
            added_at_inference=params,
            total=BACKBONE_SIZE + params + head,
        )
        record = RunRecord(
            schema_version=1,
            run_id=spec.run_id,
            spec=spec,
            status="ok" if quality or figure else status,
            time_s=Time(setup=0.5, train=seconds),
            env=msgspec.structs.replace(ENV, data_sha256=_sha(data)),
            created="2026-11-24T03:00:00+00:00",
            error=None if quality or figure else ErrorInfo(phase="adapt", type="Unsupported", message=message),
            protocol_deviation=deviation,
            quality=quality,
            trial=figure,
            phases=list(phases),
            found=dict(found or {}),
            params=counts if quality else None,
            storage=Storage(adapter_bytes=4 * (params + head)) if quality else None,
        )
        Store(self.root).write(record)
        self.records.append(record)
        return record

    def cost(
        self,
        method: str,
        peak: int | None = None,
        *,
        backbone: str = "timm/vit_base_patch16_224",
        config: Mapping[str, Any] | None = None,
        method_version: int = 1,
        batch_size: int = 64,
        num_classes: int = 100,
        precision: Any = "float32",
        frozen_dtype: Any = "float32",
        checkpointing: bool = False,
        hardware: str | None = None,
        size: int = BACKBONE_SIZE,
        params: int = 1_000,
        head: int = 500,
        evaluation: int = 1_000_000,
        flops: int = 35_000_000_000,
        merged: int | None = None,
        train_flops: int = 4_000_000_000_000,
        measured: int | None = None,
        step_ms: float | None = None,
        merged_speed: bool = False,
        status: Any = "ok",
        phase: str = "estimate",
        message: str = "it cannot",
    ) -> CostRecord:
        """Write one cost record; without a peak nothing is known but the status."""
        spec = CostSpec(
            method=MethodSpec(name=method, version=method_version, config=dict(config or {})),
            backbone=backbone,
            input_shape=(3, 224, 224),
            num_classes=num_classes,
            batch_size=batch_size,
            precision=precision,
            frozen_dtype=frozen_dtype,
            gradient_checkpointing=checkpointing,
            hardware_class=hardware,
        )
        memory = compute = counts = speed = None
        if peak is not None:
            rest = peak - 4 * size - 8 * params
            estimated = Memory(
                train_peak_allocated_bytes=peak,
                train_peak_reserved_bytes=None,
                eval_peak_allocated_bytes=evaluation,
                breakdown_bytes=MemoryBreakdown(
                    weights=4 * size, gradients=2 * params, optimizer=6 * params, activations=rest - 7, inputs=7
                ),
            )
            read = measured and Memory(
                train_peak_allocated_bytes=measured,
                train_peak_reserved_bytes=2 * measured,
                eval_peak_allocated_bytes=evaluation + 1,
                breakdown_bytes=None,
            )
            memory = MemoryCost(estimated=estimated, measured=read or None)
            compute = Compute(
                forward_flops_per_image=flops,
                merged_forward_flops_per_image=merged,
                train_step_flops=train_flops,
                uncounted_ops=["add", "gelu"],
            )
            counts = Params(
                trainable=params + head,
                trainable_without_head=params,
                stored=params + head,
                added_at_inference=params,
                total=size + params + head,
            )
        if step_ms is not None:
            inference = InferenceSpeed(images_per_s=640.0, batch1_ms=_timing(5.0))
            speed = Speed(
                train_step_ms=_timing(step_ms),
                train_images_per_s=1000 * batch_size / step_ms,
                inference=inference,
                merged=InferenceSpeed(images_per_s=800.0, batch1_ms=_timing(4.0)) if merged_speed else None,
                warmup_steps=10,
                timed_steps=4,
                threads=1,
                train_step_relative_to_full=step_ms / 200,
                inference_relative_to_bare=1.25,
            )
        record = CostRecord(
            schema_version=1,
            cost_id=spec.cost_id,
            spec=spec,
            status=status,
            env=ENV,
            created="2026-11-24T03:00:00+00:00",
            error=None if status == "ok" else ErrorInfo(phase=phase, type="Failed", message=message),
            params=counts,
            storage=Storage(adapter_bytes=4 * (params + head)) if counts else None,
            memory=memory,
            compute=compute,
            speed=speed,
        )
        Store(self.root).write_cost(record)
        self.costs.append(record)
        return record

    def method(self, name: str, family: str, doc: str = "A method.", **facts: Any) -> None:
        write_card(self.root, "methods", Card(name=name, family=family, doc=doc, origin="here", facts=facts))

    def task(self, name: str, group: str, track: str = "image", doc: str = "A task.", **facts: Any) -> None:
        own_table = {"own_table": True} if track == "openvocab" else {}  # as its objective says
        facts = {"track": track, **own_table, **facts}
        card = Card(name=name, family=group, doc=doc, origin="here", facts=facts)
        write_card(self.root, "tasks", card, PIXEL)

    def board(self) -> Board:
        subjects = self.subjects()
        return make_board(self.records, subjects, make_efficiency(self.costs, subjects))

    def subjects(self) -> Subjects:
        return Subjects(self.root, self.records, self.costs)

    def efficiency(self) -> Efficiency:
        return make_efficiency(self.costs, self.subjects())

    def sheet(self) -> CostSheet:
        """The only sheet of costs."""
        [sheet] = self.efficiency().sheets
        return sheet

    def cost_rows(self) -> dict[str, CostRow]:
        return {row.label: row for row in self.sheet().rows}

    def table(self) -> Table:
        """The only table of the board."""
        [track] = self.board().tracks
        [table] = track.tables
        return table

    def rows(self) -> dict[str, Row]:
        return {row.label: row for row in self.table().rows}

    def build(self, out: Path) -> Path:
        return build_board(self.root, out, built=datetime(2026, 11, 24, 3, 4, tzinfo=UTC)).parent


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results")


@pytest.fixture
def full_results(results: Results) -> Results:
    """A bit of everything: three tracks, failures, a deviation, hostile texts, a damaged file."""
    hostile = '<script>alert("x")</script>'
    groups = {"digits": "natural", "groups": "natural", "textures": "specialized", "count": "structured"}
    for name, group in groups.items():
        results.task(f"embedded/{name}", group, chance_percent=10.0, n_train=400, doc=f"A task. {hostile}")
    results.method("linear", "baseline", "The head only.")
    results.method("lora", "reparameterized", f"Low rank (arXiv:2106.09685). {hostile}", defaults={"rank": 8})
    for place, name in enumerate(groups):
        for seed in (0, 1):
            results.run("linear", f"embedded/{name}", 40.0 + place + seed, seed=seed, params=0)
            results.run("lora", f"embedded/{name}", 60.0 + place + seed, seed=seed, config={"rank": 8})
            results.run("lora", f"embedded/{name}", 58.0 - place, seed=seed, config={"rank": 16}, params=2_000)
    results.run("lora", "embedded/digits", 95.0, config={"rank": 8}, overrides={"epochs": 2})
    results.run("weird/<b>$x_1", "embedded/digits", status="unsupported", message=hostile)
    results.task("embedded/base2new", "open vocabulary", "openvocab", chance_percent=2.0)
    for name, base, new in (("zero_shot", 40.0, 40.0), ("coop", 60.0, 30.0)):
        parts = {"base": base, "new": new, "H": 40.0}
        results.run(
            name, "embedded/base2new", 40.0, tests=parts, metric="harmonic_mean", backbone="embedded/clip", head=0
        )
    results.task("embedded/motion", "video", "video")
    results.run("frame_mean", "embedded/motion", 15.0, params=0)
    results.run("linear", "plugin/cars", 12.0, params=0)
    for place, word in enumerate(("tiny", "small", "base", "<i>")):
        backbone, size = f"timm/vit_{word}_patch16_224", 10**6 * 4**place
        for name, peak in (("full", 8), ("lora", 5), ("linear", 1)):
            config = {"rank": 8} if name == "lora" else {}
            flops = 400 * size
            peak = round(peak * 10**8 * 2**place)
            results.cost(name, peak, backbone=backbone, size=size, config=config, flops=flops, train_flops=192 * flops)
        results.cost("weird/<b>$x_1", status="error", message=hostile, backbone=backbone, config={"<u>": hostile})
    results.cost("full", 8 * 10**8, backbone="embedded/vit", size=10**6)
    results.cost("lora", 4 * 10**8, backbone="embedded/vit", size=10**6, config={"rank": 8}, merged=1)
    for precision, dtype, peak in (("bfloat16", "float32", 3), ("bfloat16", "int8", 2)):
        variant = {"precision": precision, "frozen_dtype": dtype, "config": {"rank": 8}}
        results.cost("lora", peak * 10**8, backbone="embedded/vit", size=10**6, **variant)
    hardware = f"cuda:{hostile}"
    timed = {"backbone": "embedded/vit", "config": {"rank": 8}, "hardware": hardware}
    results.cost("lora", 4 * 10**8, measured=5 * 10**8, step_ms=134.0, merged_speed=True, **timed)
    results.cost("full", 8 * 10**8, backbone="embedded/vit", hardware=hardware, status="oom", message=hostile)
    (results.root / "costs" / "0000000000000000.json").write_text("{")
    (results.root / "0000000000000000.json").write_text('{"schema_version": 1,')
    return results


@pytest.fixture
def searched_results(results: Results) -> Results:
    """Trainings that give several models, or have several phases."""
    results.task("embedded/digits", "natural")
    for seed in (0, 1):
        ranks = {1: (50.0, 40.0 + seed), 2: (61.25, 60.0 + seed), 4: (55.0, 64.0 + seed)}
        results.run("dylora", "embedded/digits", 64.0 + seed, seed=seed, ranks=ranks)
    phases = [
        PhaseCost(name="supernet", epochs=75, steps=975, evaluations=0, seconds=60.5),
        PhaseCost(name="search", epochs=0, steps=0, evaluations=750, seconds=90.0),
        PhaseCost(name="retrain", epochs=15, steps=195, evaluations=0, seconds=12.0),
    ]
    results.run("noah", "embedded/digits", 70.0, phases=phases, found={"architecture": {"rank": [5, 1, 10]}})
    return results
