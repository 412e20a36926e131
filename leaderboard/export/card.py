"""One run as a Hugging Face model card, and its results in both of the Hub's formats, by `huggingface_hub`'s classes.

``.eval_results/*.yaml`` is the format that model pages and leaderboards of data sets read, ``model-index`` in the
card's metadata the one before it (huggingface.co/docs/hub/eval-results). No address of anything is made up: a task is
named as peftmark names it, and what a backbone or a licence is on the Hub is for its uploader to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...results import Quality, RunRecord
from ...results.tuning import tuning_of
from ..citations import cite, cite_peftmark
from ..formatting import duration, exact, plain, share, size
from ..site.command import reproduce
from ..subjects import Subject
from .markdown import block, code, prose, table, text

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, EvalResultEntry, ModelCard

_PIPELINES = {
    "image": "image-classification",
    "openvocab": "zero-shot-image-classification",
    "video": "video-classification",
}
"""The Hub's names for tasks of a track whose question is one label an example."""


@dataclass(frozen=True)
class Figure:
    split: str
    metric: str
    value: float
    n: int


@dataclass(frozen=True)
class TestedRun:
    """A run that has a test figure, and what is known of what it names.

    Attributes:
        seeds: of the final runs of the search that it belongs to; none where it is in no search.
        adapter: whether its weights go along.
    """

    record: RunRecord
    quality: Quality
    method: Subject
    task: Subject
    backbone: Subject
    seeds: tuple[int, ...]
    adapter: bool

    @property
    def title(self) -> str:
        return f"{self.method.name} on {self.backbone.name}, {self.task.name}"

    @property
    def protocol(self) -> str:
        """By its name for the command line."""
        return f"{self.record.spec.protocol.name}-v{self.record.spec.protocol.version}"

    @property
    def pipeline(self) -> str | None:
        """What the Hub calls the task; None of a question that is not known to be one of its own."""
        return _PIPELINES.get(self.task.track) if "num_classes" in self.task.facts else None

    @property
    def headline(self) -> Figure:
        quality = self.quality
        return Figure("all tests" if self.parts else "test", quality.metric, quality.test, quality.n_test)

    @property
    def parts(self) -> list[Figure]:
        """Of each test split, where there are several: of a classification its accuracy."""
        tests = self.quality.tests
        metric = "accuracy" if self.pipeline else self.quality.metric
        return [Figure(name, metric, each.value, each.n) for name, each in tests.items()] if len(tests) > 1 else []


def model_card(run: TestedRun) -> ModelCard:
    from huggingface_hub import ModelCard, ModelCardData

    record, spec = run.record, run.record.spec
    data = ModelCardData(
        library_name="peftmark",
        pipeline_tag=run.pipeline,
        tags=["peftmark", "parameter-efficient-fine-tuning", run.method.name],
        metrics=[run.quality.metric],
        model_name=run.title,
        eval_results=list(_eval_results(run)),
        peftmark={
            "run_id": record.run_id,
            "method": {"name": spec.method.name, "version": spec.method.version, "config": spec.method.config},
            "backbone": {"name": spec.backbone.name, "weights_sha256": spec.backbone.weights},
            "task": {"name": spec.task.name, "version": spec.task.version, "split_sha256": spec.task.split_sha256},
            "protocol": {"name": run.protocol, "overrides": spec.protocol.overrides},
            "seed": spec.seed,
        },
    )
    body = "\n\n".join(part for part in _body(run) if part)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def _eval_results(run: TestedRun) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    quality, task = run.quality, run.record.spec.task
    for figure in (run.headline, *run.parts):
        yield EvalResult(
            task_type=run.pipeline or "other",
            task_name=run.task.name,
            dataset_type=run.task.name,
            dataset_name=run.task.name,
            dataset_split=figure.split,
            dataset_args={"version": task.version, "split_sha256": task.split_sha256},
            metric_type=figure.metric,
            metric_name=f"{figure.metric} ({quality.unit})",
            metric_value=figure.value,
            metric_args={"unit": quality.unit, "n": figure.n, "higher_is_better": quality.higher_is_better},
        )


def eval_entries(run: TestedRun) -> list[EvalResultEntry]:
    """The headline under the name of its metric, then a test split each where there are several."""
    from huggingface_hub import EvalResultEntry

    record, spec = run.record, run.record.spec
    figures = [(run.quality.metric, run.headline), *((part.split, part) for part in run.parts)]
    setting = f"{spec.method.name} on {spec.backbone.name}, protocol {run.protocol}, seed {spec.seed}"
    departs = "; departs from the protocol" if _departure(record) else ""
    return [
        EvalResultEntry(
            dataset_id=run.task.name,
            task_id=name,
            value=figure.value,
            date=record.created,
            notes=f"{setting}{departs}; in {run.quality.unit}, n = {figure.n}; peftmark run {record.run_id}",
        )
        for name, figure in figures
    ]


def _body(run: TestedRun) -> Iterator[str]:
    record, quality, spec = run.record, run.quality, run.record.spec
    yield f"# {text(run.title)}"
    chance = f"; chance is {run.task.chance:.1f}" if run.task.chance is not None else ""
    unit = "%" if quality.unit == "percent" else f" {text(quality.unit)}"
    metric, better = quality.metric.replace("_", " "), "higher" if quality.higher_is_better else "lower"
    yield (
        f"**{text(metric)} {quality.test:.2f}{unit}** on {exact(quality.n_test)} test examples{chance}; "
        f"{better} is better. This is one run of peftmark, of seed {spec.seed}, and one run has no spread. The test "
        f"split was read once, after training; nothing was chosen on it."
    )
    if departure := _departure(record):
        yield f"**Departs from its protocol and is not ranked**: {text(departure)}."
    if tuning := tuning_of(spec):
        yield (
            f"What a search of {tuning.trials} trials chose on validation data: trial {spec.trial}, learning rate "
            f"{tuning.learning_rate:g}."
        )
    if isinstance(caution := run.task.facts.get("caution"), str):
        yield f"> {text(caution)}"
    yield from _subject("Method", run.method, f"version {spec.method.version}")
    yield from _subject("Backbone", run.backbone, f"weights {code(spec.backbone.weights)}")
    yield from _subject("Task", run.task, f"version {spec.task.version}, split {code(spec.task.split_sha256)}")
    yield "## Results"
    rows = [
        [text(figure.split), text(figure.metric), repr(figure.value), text(quality.unit), exact(figure.n)]
        for figure in (run.headline, *run.parts)
    ]
    if quality.validation is not None:
        rows.append(["validation", text(quality.metric), repr(quality.validation), text(quality.unit), ""])
    yield table(["split", "metric", "value", "unit", "n"], rows)
    yield from _costs(record)
    yield "## Settings"
    settings = [*_settings("method", spec.method.config), ["protocol", code(run.protocol)]]
    settings += [*_settings("protocol", spec.protocol.overrides), ["seed", str(spec.seed)]]
    yield table(["setting", "value"], settings)
    yield "## Reproduce"
    yield block(reproduce(spec, run.method.defaults, run.seeds), "sh")
    yield "The same specification has the same run id; on the same machine it gives the same predictions, bit for bit."
    yield from _environment(record)
    yield "## Files"
    yield f"- {code(f'{record.run_id}.json')}: the record, from which all of this was made.\n" + (
        "- `adapter.safetensors`: what was trained, head included, for `load_adapter_state_dict` of a model that "
        "`peftmark.adapt` makes of the same backbone, method and settings."
        if run.adapter
        else "- There are no weights: the run kept none (`peftmark run --save-adapters`)."
    )
    yield "## Citation"
    yield block("\n\n".join(filter(None, [cite_peftmark(), cite(run.method)])), "bibtex")


def _departure(record: RunRecord) -> str:
    overrides = [f"{key}={plain(value)}" for key, value in sorted(record.spec.protocol.overrides.items())]
    return "; ".join([*overrides, *([record.protocol_deviation] if record.protocol_deviation else [])])


def _subject(kind: str, subject: Subject, facts: str) -> Iterator[str]:
    yield f"## {kind}"
    yield f"{code(subject.name)}, {facts}."
    yield prose(subject.doc)


def _costs(record: RunRecord) -> Iterator[str]:
    params = record.params
    if params is None or not params.total:
        return
    yield "## Parameters"
    rows = [
        ["trained, head included", exact(params.trainable)],
        ["trained, without the head", exact(params.trainable_without_head)],
        ["stored in the adapter's file", exact(params.stored)],
        ["added at inference", exact(params.added_at_inference)],
        ["all of the model", exact(params.total)],
        ["share that is trained, without the head", share(params.trainable_without_head / params.total)],
    ]
    rows += [["adapter's file", size(record.storage.adapter_bytes)]] if record.storage else []
    yield table(["parameters", "number"], rows)


def _settings(kind: str, config: Mapping[str, Any]) -> list[list[str]]:
    return [
        [code(f"{kind}.{key}"), code(json.dumps(value, ensure_ascii=False))] for key, value in sorted(config.items())
    ]


def _environment(record: RunRecord) -> Iterator[str]:
    env = record.env
    yield "## Environment"
    source = f"{env.git_sha}{' with changes' if env.dirty else ''}" if env.git_sha else "unknown"
    rows = [
        ["hardware", f"{env.hardware_class}, {env.device}, threads: {env.threads}"],
        ["torch, Python", f"{env.torch}, {env.python}"],
        ["packages", ", ".join(f"{name} {version}" for name, version in sorted(env.packages.items()))],
        ["peftmark's commit", source],
        ["sha256 of the data", env.data_sha256 or "not hashed"],
        ["odd about the data", "; ".join(env.data_warnings) or "nothing"],
        ["training", f"{duration(record.time_s.train)} (information only: runs share machines)"],
        ["made", record.created],
        ["run", record.run_id],
    ]
    yield table(["environment", "value"], [[name, text(value)] for name, value in rows])
