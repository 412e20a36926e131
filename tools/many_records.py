"""``python -m tools.many_records``: a results folder as a large benchmark leaves it, made up from a seed.

Methods in several configurations, on backbones, tasks and seeds, with failures, deviations, searches and costs. Figures
are drawn; everything else is as the harness would write it, so that `peftmark validate` finds nothing wrong.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from peftmark.registry import METHODS
from peftmark.results import (
    FAITHFUL,
    BackboneSpec,
    Card,
    Compute,
    CostRecord,
    CostSpec,
    Env,
    ErrorInfo,
    Memory,
    MemoryBreakdown,
    MemoryCost,
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
    TrialFigure,
    TuningSpec,
    predictions_file,
    predictions_sha256,
    write_card,
    write_predictions,
)
from peftmark.results.record import RecordPart
from peftmark.results.tuning import chosen

GROUPS = {
    "natural": "caltech101 cifar100 dtd flowers102 pets sun397 svhn",
    "specialized": "camelyon eurosat resisc45 retinopathy",
    "structured": "clevr_count clevr_distance dmlab kitti dsprites_location dsprites_orientation smallnorb_azimuth "
    "smallnorb_elevation",
    "fgvc": "cub nabirds cars dogs aircraft",
}
TASKS = {f"vtab/{name}": group for group, names in GROUPS.items() for name in names.split()}
BACKBONES = {
    f"timm/{name}": size * 10**6
    for name, size in (
        ("vit_base_patch16_224", 86), ("vit_small_patch16_224", 22), ("vit_large_patch16_224", 303),
        ("swin_base_patch4_window7_224", 87), ("convnext_base", 88), ("vit_tiny_patch16_224", 6), ("deit3_base", 86),
        ("eva02_base_patch14_224", 86),
    )
}  # fmt: skip
SEEDS, EXAMPLES = 5, 1000
FAILURES: tuple[tuple[Any, str, str, str], ...] = (
    ("oom", "train", "OutOfMemoryError", "CUDA out of memory. Tried to allocate 1.50 GiB"),
    ("diverged", "train", "Diverged", "the loss is not finite at epoch 3"),
    ("timeout", "train", "Timeout", "stopped after 3600 s"),
    ("error", "data", "RuntimeError", "image 17 of the training split cannot be read"),
    ("cancelled", "train", "Cancelled", "stopped by a person"),
)
NOTHING_FITS = ("unsupported", "adapt", "Unsupported", "the backbone has no query to attach it to")
TRIALS, STUDIES = 15, 3
SEARCHED = {"learning_rate": "log-uniform from 0.0003 to 0.1", "rank": "one of 4, 8, 16, 32"}
RANKS = (8, 16, 4, 32, 2, 64, 12, 24, 48, 1, 96, 128)

Stage = Literal["trial", "final"]


@cache
def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Benchmark:
    """What records are made of: the first `n` of a plan, then as many of searches as it takes.

    Args:
        epochs: entries of a run's curve.
    """

    def __init__(self, seed: int, epochs: int) -> None:
        self.random = np.random.default_rng(seed)
        self.epochs = epochs
        names = [name for name in METHODS.names() if "image" in METHODS.entry(name).metadata["tracks"]]
        self.families = {name: METHODS.entry(name).family for name in names if not name.endswith("/*")}
        self.protocol = ProtocolSpec(name="image", version=1)
        changed = ProtocolSpec(name="image", version=1, overrides={"epochs": 50})
        recipe = ProtocolSpec(name="image", version=1, overrides={"preset": FAITHFUL, "epochs": 100})
        self.protocols = {3: changed, 11: recipe}
        self.backbones = {name: BackboneSpec(name=name, weights=sha(name)) for name in BACKBONES}
        self.tasks = {name: TaskSpec(name=name, version=1, split_sha256=sha(name)) for name in TASKS}
        packages = {"peftmark": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31"}
        packages |= {"open_clip_torch": "3.3.0", "numpy": "2.4.6", "scikit-learn": "1.9.1", "safetensors": "0.8.0"}
        self.env = Env(
            hardware_class="cuda:NVIDIA H100",
            device="cuda",
            torch="2.14.1+cu130",
            python="3.11.7",
            packages=packages,
            git_sha=sha("git")[:40],
            dirty=False,
            threads=8,
        )

    def methods(self) -> Iterator[MethodSpec]:
        """All methods' defaults, then other ranks of those that have one."""
        for rank in RANKS:
            for name, family in self.families.items():
                config = {"rank": rank, "alpha": float(rank), "dropout": 0.1, "targets": ["q", "v"]}
                if family != "baseline":
                    yield MethodSpec(name=name, version=1, config=config)
                elif rank == RANKS[0]:
                    yield MethodSpec(name=name, version=1)

    def plan(self, backbones: int) -> Iterator[RunSpec]:
        """Configuration by configuration, each on all backbones and tasks; a few of them depart from the protocol."""
        for number, method in enumerate(self.methods()):
            protocol = self.protocols.get(number % 16, self.protocol)
            for backbone in islice(self.backbones.values(), backbones):
                for task in self.tasks.values():
                    parts: dict[str, Any] = {"method": method, "backbone": backbone, "task": task, "protocol": protocol}
                    yield from (RunSpec(**parts, seed=seed) for seed in range(SEEDS))

    def record(self, spec: RunSpec) -> RunRecord:
        failure = self._failure(spec)
        seconds = round(float(self.random.uniform(60, 900)), 3)
        made: dict[str, Any] = {"quality": None, "params": None, "storage": None}
        if failure is None:
            made = self._outcome(spec)
        overrides = spec.protocol.overrides
        return RunRecord(
            schema_version=1,
            run_id=spec.id,
            spec=spec,
            status=failure[0] if failure else "ok",
            time_s=Time(setup=1.25, data=0.5, train=seconds, evaluation=3.75),
            env=msgspec.structs.replace(self.env, data_sha256=sha(f"data of {spec.task.name}")),
            created=f"2026-11-{1 + int(seconds) % 28:02}T{int(seconds) % 24:02}:15:00+00:00",
            error=ErrorInfo(phase=failure[1], type=failure[2], message=failure[3]) if failure else None,
            protocol_deviation=", ".join(f"{key}={value}" for key, value in overrides.items()) or None,
            **made,
        )

    def _failure(self, spec: RunSpec) -> tuple[Any, str, str, str] | None:
        if int(sha(f"{spec.method.name} on {spec.backbone.name}"), 16) % 50 == 0:
            return NOTHING_FITS
        drawn = self.random.random()
        return FAILURES[int(drawn * 1000)] if drawn < len(FAILURES) / 1000 else None

    def _outcome(self, spec: RunSpec) -> dict[str, Any]:
        """A figure that the method, backbone and task have in common with others, and noise."""
        parts = [f"{name} is worth" for name in (spec.method.name, spec.backbone.name, spec.task.name)]
        of_method, of_backbone, of_task = (int(sha(part), 16) % 1000 / 1000 for part in parts)
        rank = spec.method.config.get("rank", 0)
        expected = 35 + 40 * of_task + 12 * of_method + 6 * of_backbone + math.log2(1 + rank) / 2
        right, good = (
            int(np.clip(10 * (expected + self.random.normal(0, 0.7)), 10, 990)) for _ in ("test", "validation")
        )
        curve = self._curve()
        common: dict[str, Any] = {"metric": "accuracy", "predictions_sha256": sha(f"{spec.id} {right}"), "curve": curve}
        head = 100 * 768 + 100
        params = int(BACKBONES[spec.backbone.name] * 0.0005 * rank) if rank else 0
        figures: dict[str, Any] = {
            "params": Params(
                trainable=params + head,
                trainable_without_head=params,
                stored=params + head,
                added_at_inference=params,
                total=BACKBONES[spec.backbone.name] + params + head,
            ),
            "storage": Storage(adapter_bytes=4 * (params + head)),
        }
        if spec.is_trial:
            return figures | {"trial": TrialFigure(validation=good / 10, **common)}
        test = right * 100 / EXAMPLES
        return figures | {
            "quality": Quality(
                validation=None if spec.tuning else good / 10,
                test=test,
                tests={"test": TestFigure(value=test, n=EXAMPLES)},
                n_test=EXAMPLES,
                **common,
            )
        }

    def _curve(self) -> list[dict[str, float]]:
        """A loss that falls, a learning rate that follows a cosine."""
        epochs = np.arange(1, self.epochs + 1)
        noise = self.random.normal(1, 0.03, self.epochs)
        loss = (0.05 + 2.3 * np.exp(-epochs / (0.3 * self.epochs))) * noise
        rate = 0.001 * (1 + np.cos(np.pi * (epochs - 1) / self.epochs)) / 2
        return [
            {"epoch": float(epoch), "train_loss": a, "learning_rate": b}
            for epoch, a, b in zip(epochs, loss.tolist(), rate.tolist(), strict=True)
        ]

    def search(self, number: int) -> Iterator[RunRecord]:
        """The trials of a search and the final runs of what its studies chose: no two searches are of the same."""
        names = [name for name, family in self.families.items() if family != "baseline"]
        of_task, of_method = divmod(number, len(names))
        backbone, task = (
            list(self.backbones.values())[of_task // len(TASKS) % len(BACKBONES)],
            list(self.tasks.values()),
        )
        where: dict[str, Any] = {"backbone": backbone, "task": task[of_task % len(TASKS)], "protocol": self.protocol}

        def spec(stage: Stage, trial: int, seed: int) -> RunSpec:
            rank, rate = (8, 0.001) if trial == 0 else (RANKS[trial % 4], 0.0003 * 1.4**trial)
            config = {"rank": rank, "alpha": 8.0, "dropout": 0.1, "targets": ["q", "v"]}
            tuning = TuningSpec(
                stage=stage,
                tuner="halton",
                trials=TRIALS,
                studies=STUDIES,
                space=SEARCHED,
                learning_rate=rate,
                points_sha256=sha("points"),
            )
            method = MethodSpec(name=names[of_method], version=1, config=config)
            return RunSpec(method=method, **where, trial=trial, seed=seed, tuning=tuning)

        trials = {trial: self.record(spec("trial", trial, 0)) for trial in range(TRIALS - STUDIES + 1)}
        yield from trials.values()
        for trial in sorted({record.spec.trial for record in chosen(trials)}):
            yield from (self.record(spec("final", trial, seed)) for seed in (1, 2, 3))

    def cost(self, method: MethodSpec, backbone: str) -> CostRecord:
        spec = CostSpec(method=method, backbone=backbone, input_shape=(3, 224, 224), num_classes=100, batch_size=64)
        size, rank = BACKBONES[backbone], int(method.config.get("rank", 0))
        trained = int(size * 0.0005 * rank) if rank else size
        activations = 40 * size + 10_000 * rank + int(sha(method.name), 16) % 10**7
        parts: dict[str, int] = {
            "weights": 4 * size,
            "gradients": 4 * trained,
            "optimizer": 8 * trained,
            "inputs": 38_535_168,
        }
        memory = Memory(
            train_peak_allocated_bytes=sum(parts.values()) + activations,
            train_peak_reserved_bytes=None,
            eval_peak_allocated_bytes=6 * size,
            breakdown_bytes=MemoryBreakdown(**parts, activations=activations),
        )
        forward = 400 * size + 1000 * trained
        compute = Compute(
            forward_flops_per_image=forward,
            merged_forward_flops_per_image=None,
            train_step_flops=150 * forward,
            uncounted_ops=["add", "gelu"],
        )
        return CostRecord(
            schema_version=1,
            cost_id=spec.id,
            spec=spec,
            status="ok",
            env=self.env,
            created="2026-11-24T14:12:40+00:00",
            memory=MemoryCost(estimated=memory, measured=None),
            compute=compute,
        )

    def cards(self, root: Path) -> None:
        for name, family in self.families.items():
            write_card(root, "methods", Card(name=name, family=family, doc=f"The method {name}.", origin="made up"))
        for name, size in BACKBONES.items():
            facts: dict[str, Any] = {"parameters": size}
            family = name.partition("/")[0]
            write_card(root, "backbones", Card(name=name, family=family, doc=name, origin="made up", facts=facts))
        for name, group in TASKS.items():
            facts = {"track": "image", "metric": "accuracy", "chance_percent": 1.0, "n_test": EXAMPLES}
            write_card(root, "tasks", Card(name=name, family=group, doc=name, origin="made up", facts=facts))


def made_up_predictions(record: RunRecord, path: Path, random: np.random.Generator) -> RunRecord:
    """Write predictions as good as a record says, and give the record with their hash."""
    assert record.quality is not None
    target = random.integers(0, 100, EXAMPLES)
    wrong = random.permutation(EXAMPLES) >= round(record.quality.test * EXAMPLES / 100)
    predicted = (target + wrong * random.integers(1, 100, EXAMPLES)) % 100
    sure = random.uniform(0.3, 1, EXAMPLES)
    arrays: dict[str, NDArray[Any]] = {
        "predicted": predicted.astype(np.int64),
        "target": target.astype(np.int64),
        "probability_true": np.where(wrong, 0.1 * sure, sure).astype(np.float32),
        "probability_max": sure.astype(np.float32),
    }
    write_predictions(path, {"test": arrays})
    quality = msgspec.structs.replace(record.quality, predictions_sha256=predictions_sha256({"test": arrays}))
    return msgspec.structs.replace(record, quality=quality)


def write_many(
    root: Path, n: int, *, seed: int = 0, epochs: int = 30, searches: int | None = None, predictions: int = 0
) -> None:
    """Fill a folder with `n` records of runs and the costs of their configurations.

    Args:
        searches: by how many searches some of the runs are (each about 20 runs); one in a thousand by default.
        predictions: of how many runs there are predictions.
    """
    benchmark = Benchmark(seed, epochs)
    searches = n // 1000 if searches is None else searches
    (root / "costs").mkdir(parents=True, exist_ok=True)
    benchmark.cards(root)
    backbones = 4 if n < 50_000 else len(BACKBONES)
    of_searches = [record for number in range(searches) for record in benchmark.search(number)][:n]
    of_plan = map(benchmark.record, benchmark.plan(backbones))
    methods: dict[bytes, MethodSpec] = {}
    for record in chain(of_searches, islice(of_plan, n - len(of_searches))):
        path = root / f"{record.run_id}.json"
        if predictions and record.quality:
            record = made_up_predictions(record, predictions_file(path), benchmark.random)
            predictions -= 1
        _write(path, record)
        if not record.spec.tuning:
            methods.setdefault(record.spec.method.canonical, record.spec.method)
    for method in methods.values():
        for backbone in islice(BACKBONES, backbones):
            cost = benchmark.cost(method, backbone)
            _write(root / "costs" / f"{cost.cost_id}.json", cost)


def _write(path: Path, record: RecordPart) -> None:
    """As the store does, without waiting for the disk."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")


@click.command()
@click.argument("n", type=click.IntRange(min=1))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="A new folder.")
@click.option("--seed", default=0, show_default=True)
@click.option("--epochs", default=30, show_default=True, type=click.IntRange(min=1))
@click.option("--searches", type=click.IntRange(min=0), help="How many; by default one for a thousand records.")
@click.option("--predictions", default=0, show_default=True, help="Of how many runs there are predictions.")
def main(n: int, out: Path, seed: int, epochs: int, searches: int | None, predictions: int) -> None:
    """Make up N records."""
    if out.exists() and any(out.iterdir()):
        raise click.UsageError(f"{out} is not empty")
    write_many(out, n, seed=seed, epochs=epochs, searches=searches, predictions=predictions)


if __name__ == "__main__":
    main()
