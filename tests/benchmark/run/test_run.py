"""One run: a spec in, a record out, whatever happens in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from peftmark.benchmark.plan.runs import Request, plan
from peftmark.benchmark.run import evaluation, inputs, training
from peftmark.benchmark.run.run import run
from peftmark.results import RunRecord, RunSpec, decode_record, encode_record

CPU = torch.device("cpu")
Go = Callable[..., RunRecord]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def go(toy_plugin: Path) -> Go:
    """Plan and carry out one run."""

    def run_one(
        method: str = "toy_full",
        task: str = "toy/bright",
        backbone: str = "toy/pixels",
        config: dict[str, Any] | None = None,
        adapter: Path | None = None,
        seed: int = 0,
        **protocol: Any,
    ) -> RunRecord:
        settings = {"epochs": 5, "learning_rate": 0.01, **protocol}
        request = Request(
            methods=[method],
            tasks=[task],
            backbones=[backbone],
            seeds=[seed],
            method_settings=config or {},
            protocol_settings=settings,
        )
        made = plan(request)
        [spec] = made.specs
        record = run(spec, CPU, made.checkpoints.get(spec.backbone.weights), adapter)
        assert record.run_id == spec.run_id
        assert record.spec == spec
        data = encode_record(record)
        assert msgspec.to_builtins(decode_record(data, "x")) == json.loads(data)
        return record

    return run_one


def test_a_record_of_a_run_that_went_well(go: Go) -> None:
    record = go(epochs=20)
    assert (record.status, record.error) == ("ok", None)
    quality = record.quality
    assert quality is not None
    assert quality.metric == "accuracy"
    assert quality.test == quality.tests["test"].value == 100.0  # dark or bright is easy: it did learn
    assert quality.validation == 100.0
    assert quality.tests["test"].n == quality.n_test == 12
    assert len(quality.predictions_sha256) == 64
    assert len(quality.curve) == 20
    assert quality.curve[-1]["train_loss"] < quality.curve[0]["train_loss"]
    assert 0 < record.time_s.train < 60
    assert record.env.threads == 1
    assert record.env.device == "cpu"
    assert len(record.env.data_sha256 or "") == 64
    assert record.created.endswith("+00:00")


def test_untrained_it_is_no_better_than_chance(go: Go) -> None:
    record = go(epochs=0)
    assert record.quality is not None
    assert record.quality.curve == []
    assert record.quality.test < 100


def test_parameters_are_counted(go: Go) -> None:
    backbone, head = 192 * 8 + 8, 8 * 2 + 2
    params = go().params
    assert params is not None
    assert msgspec.structs.asdict(params) == {
        "trainable": backbone + head,
        "trainable_without_head": backbone,
        "stored": backbone + head,
        "added_at_inference": 0,
        "total": backbone + head,
    }
    probe = go("linear").params
    assert probe is not None
    assert msgspec.structs.asdict(probe) == {
        "trainable": head,
        "trainable_without_head": 0,
        "stored": head,
        "added_at_inference": 0,
        "total": backbone + head,
    }


@pytest.mark.parametrize(("method", "stays"), [("lora", False), ("pfeiffer_adapter", True)])
def test_what_inference_adds(go: Go, checkpoint: Path, method: str, stays: bool) -> None:
    params = go(method, backbone=f"embedded/vit@{checkpoint}", epochs=1).params
    bare = go("linear", backbone=f"embedded/vit@{checkpoint}", epochs=1).params
    assert params is not None
    assert bare is not None
    inserted = params.total - bare.total
    assert inserted == params.trainable_without_head > 0
    assert params.added_at_inference == (inserted if stays else 0)
    assert params.stored == params.trainable == inserted + bare.trainable


def test_the_adapter_is_saved_and_its_size_recorded(go: Go, tmp_path: Path) -> None:
    path = tmp_path / "adapters" / "a.safetensors"
    record = go("linear", adapter=path)
    state = load_file(path)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {"head.weight": (2, 8), "head.bias": (2,)}
    assert record.storage is not None
    assert record.storage.adapter_bytes == path.stat().st_size
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("method", "local"), [("toy_full", False), ("full", True), ("scratch", True), ("lora", True), ("dylora", True)]
)
def test_the_same_spec_gives_the_same_bits(go: Go, checkpoint: Path, method: str, local: bool) -> None:
    """Also where the second run takes the backbone from the cache, and another run trained in between."""
    backbone = f"embedded/vit@{checkpoint}" if local else "toy/pixels"
    first = go(method, backbone=backbone, epochs=2)
    torch.manual_seed(123)
    go("full", backbone=backbone, epochs=1, seed=5)
    second = go(method, backbone=backbone, epochs=2)
    assert first.quality == second.quality
    assert first.quality is not None
    other = go(method, backbone=backbone, epochs=2, seed=1)
    assert other.quality is not None
    assert other.quality.curve != first.quality.curve


def test_the_test_split_is_evaluated_once_after_training(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    train, predict = training.train, evaluation.predict

    def watched_train(model: Any, images: Any, labels: Any, *rest: Any) -> Any:
        events.append(f"train on {len(labels)}")
        return train(model, images, labels, *rest)

    def watched_predict(*arguments: Any) -> Any:
        predictions = predict(*arguments)
        events.append(f"predict {len(predictions[0]['predicted'])}")
        return predictions

    monkeypatch.setattr(training, "train", watched_train)
    monkeypatch.setattr(evaluation, "predict", watched_predict)
    assert go().status == "ok"
    assert events == ["train on 16", "predict 10", "predict 12"]
    events.clear()
    assert go("toy_phases").status == "ok"
    once = ["predict 10", "predict 12"]
    assert events == ["train on 16", *["predict 10"] * 2, "train on 16", *once * 3]


@pytest.mark.parametrize("method", ["toy_full", "linear"])
def test_training_sees_neither_validation_nor_test(go: Go, tmp_path: Path, method: str) -> None:
    """A task that differs in these alone gives the same adapter, bit for bit."""
    one = go(method, "toy/bright", adapter=tmp_path / "one")
    two = go(method, "toy/bright_too", adapter=tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert one.env.data_sha256 != two.env.data_sha256


@pytest.mark.parametrize(
    ("choice", "status", "phase", "kind", "message"),
    [
        ({"config": {"fault": "unsupported"}}, "unsupported", "setup", "Unsupported", "toys do not work here"),
        ({"method": "zero_shot"}, "unsupported", "setup", "Unsupported",
         "zero_shot is for openvocab tasks; toy/bright is image"),
        ({"method": "bitfit", "task": "toy/clips"}, "ok", "", "", ""),
        ({"method": "lora"}, "unsupported", "setup", "Unsupported", "toy/pixels has no transformer blocks"),
        ({"config": {"fault": "diverge"}}, "diverged", "train", "Diverged", "the loss is nan in epoch 1, at learning"),
        ({"config": {"fault": "memory"}}, "oom", "setup", "RuntimeError", "can't allocate memory"),
        ({"config": {"fault": "python memory"}}, "oom", "train", "MemoryError", "MemoryError (toys.py:"),
        ({"config": {"fault": "raise"}}, "error", "setup", "RuntimeError", "a toy broke (toys.py:"),
        ({"task": "toy/gone"}, "error", "data", "FileNotFoundError", "no images in /nowhere (toys.py:"),
    ],
)  # fmt: skip
def test_every_failure_is_a_record(
    go: Go, choice: dict[str, Any], status: str, phase: str, kind: str, message: str
) -> None:
    record = go(**{"method": "toy_fault", **choice})
    assert record.status == status
    if status == "ok":
        return
    assert record.quality is None
    assert record.error is not None
    assert (record.error.phase, record.error.type) == (phase, kind)
    assert message in record.error.message
    assert (record.params is not None) == (phase == "train")


def test_a_failure_in_evaluation(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ValueError("")

    monkeypatch.setattr(evaluation, "predict", fail)
    error = go().error
    assert error is not None
    assert (error.phase, error.type) == ("evaluation", "ValueError")
    assert error.message.startswith("ValueError (test_run.py:")


def test_a_checkpoint_that_is_damaged(go: Go, checkpoint: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    half.write_bytes(checkpoint.read_bytes()[:10_000])
    record = go("linear", backbone=f"embedded/vit@{half}")
    assert (record.status, record.error and record.error.type) == ("error", "PeftmarkError")
    assert record.error is not None
    assert f"{half} cannot be read as weights" in record.error.message
    assert "\n" not in record.error.message
    assert "is the file whole?" in record.error.message


def test_weights_that_changed_since_the_plan(go: Go, checkpoint: Path) -> None:
    spec = go("linear", backbone=f"embedded/vit@{checkpoint}", epochs=1).spec
    other = msgspec.structs.replace(spec, backbone=msgspec.structs.replace(spec.backbone, weights="0" * 64))
    record = run(other, CPU, checkpoint)
    assert record.status == "error"
    assert record.error is not None
    assert "changed since the run was planned" in record.error.message


def test_deviations_are_written_out(go: Go, toy_plugin: Path) -> None:
    assert go().protocol_deviation == "protocol embedded-v1 with epochs=5, learning_rate=0.01"
    request = Request(methods=["toy_full"], tasks=["toy/bright"], backbones=["toy/pixels"])
    [spec] = plan(request).specs
    assert isinstance(spec, RunSpec)
    assert run(spec, CPU).protocol_deviation is None


def test_clips(go: Go) -> None:
    record = go(task="toy/clips", epochs=20)
    assert record.quality is not None
    assert record.quality.test == 100.0


def test_phases_are_timed_and_counted_and_the_last_one_is_the_training(go: Go) -> None:
    record = go("toy_phases", epochs=3, batch_size=8, schedule="constant", warmup_epochs=0)
    assert [(p.name, p.epochs, p.steps, p.evaluations) for p in record.phases] == [
        ("first", 6, 12, 0),
        ("look", 0, 0, 2),
        ("last", 3, 6, 0),
    ]
    quality = record.quality
    assert quality is not None
    assert record.found == {"best": 100.0}
    assert [entry["epoch"] for entry in quality.curve] == [1, 2, 3]  # of the last phase
    assert record.params is not None
    assert record.params.trainable == 8 * 2 + 2  # as it is then
    assert record.time_s.tuning == pytest.approx(sum(p.seconds for p in record.phases[:2]), abs=0.01)
    assert record.time_s.train == pytest.approx(record.phases[2].seconds, abs=0.01)


def test_a_phase_that_only_looks_is_not_the_training(go: Go) -> None:
    record = go("toy_looks_last", epochs=3, batch_size=8)
    assert [(p.name, p.epochs, p.evaluations) for p in record.phases] == [("train", 3, 0), ("look", 0, 1)]
    assert record.quality is not None
    assert [entry["epoch"] for entry in record.quality.curve] == [1, 2, 3]
    assert record.time_s.train == pytest.approx(record.phases[0].seconds, abs=0.01)
    assert record.time_s.tuning == pytest.approx(record.phases[1].seconds, abs=0.01)


def test_a_method_of_one_phase_says_nothing_of_phases(go: Go) -> None:
    record = go()
    assert (record.phases, record.found) == ([], {})
    assert record.time_s.tuning < 0.01
    assert record.quality is not None
    assert record.quality.variants == []


def test_every_variant_is_evaluated_after_the_model_itself(go: Go) -> None:
    """A head of zeros says one class of everything: half of each split."""
    quality = go("toy_phases", epochs=20).quality
    assert quality is not None
    assert quality.test == 100.0
    assert [(v.axis, v.value, v.validation, v.test) for v in quality.variants] == [
        ("head", 0, 50.0, 50.0),
        ("head", 1, 100.0, 100.0),
    ]


def test_a_phase_scales_the_learning_rate_and_the_epochs(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, float]] = []
    train = training.train

    def watched(model: Any, images: Any, labels: Any, protocol: Any, rate: float, context: Any, *rest: int) -> Any:
        assert context.epochs == protocol.epochs
        seen.append((protocol.epochs, rate))
        return train(model, images, labels, protocol, rate, context, *rest)

    monkeypatch.setattr(training, "train", watched)
    go("toy_phases", epochs=4, learning_rate=0.02)
    assert seen == [(8, 0.01), (4, 0.02)]


@pytest.mark.parametrize("final_training", ["train", "train+validation"])
def test_too_large_a_training_set_is_preprocessed_batch_by_batch(
    go: Go, monkeypatch: pytest.MonkeyPatch, final_training: str
) -> None:
    whole = go(final_training=final_training)
    asked: list[int] = []
    plain = inputs.Lazily.__getitem__

    def counted(self: inputs.Lazily, indices: torch.Tensor) -> torch.Tensor:
        asked.append(len(indices))
        return plain(self, indices)

    monkeypatch.setattr(inputs.Lazily, "__getitem__", counted)
    monkeypatch.setattr(inputs, "AT_ONCE", 0)
    batches = go(final_training=final_training)
    assert sum(asked) == 5 * (16 if final_training == "train" else 26)
    assert whole.quality is not None and batches.quality is not None
    assert whole.quality.curve == batches.quality.curve
    assert whole.quality.predictions_sha256 == batches.quality.predictions_sha256
