"""Cost records: counts, operations and storage by hand; what fails becomes a record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from peftmark.benchmark.measure import profile as module
from peftmark.benchmark.measure.adapter_file import safetensors_bytes
from peftmark.benchmark.measure.profile import build, profile
from peftmark.benchmark.plan.costs import cost_specs
from peftmark.benchmark.plan.suite import SuiteProfiles
from peftmark.benchmark.run.run import count_parameters
from peftmark.errors import PeftmarkError
from peftmark.registry import METHODS
from peftmark.results import CostSpec, Store, decode_cost, encode_record

IMAGE_METHODS = [name for name in METHODS.expand("*") if "image" in METHODS.entry(name).metadata["tracks"]]
CPU = torch.device("cpu")


def spec(method: str, backbone: str = "embedded/vit", **settings: Any) -> CostSpec:
    config = {key: settings.pop(key) for key in list(settings) if key in ("rank", "keep", "targets")}
    hardware = settings.pop("hardware_class", None)
    sizes = {"batch_size": settings.pop("batch_size", 4), "num_classes": settings.pop("num_classes", 10)}
    block = SuiteProfiles(backbones=[backbone], methods=[method], variants=[settings], **sizes)
    (made,) = cost_specs(backbone, [(method, config)], block, {}, hardware)
    return made


@pytest.mark.parametrize("method", IMAGE_METHODS)
def test_every_method_is_profiled_without_its_weights(method: str) -> None:
    """What is counted on fake tensors is what the real model has, and what its file would weigh."""
    cost = spec(method, keep=0.05) if method in ("diff_pruning", "fish_mask", "magnitude_mask") else spec(method)
    record = profile(cost)
    assert (record.status, record.error) == ("ok", None)
    model = build(cost, CPU)
    assert record.params == count_parameters(model)
    assert record.storage is not None
    assert record.storage.adapter_bytes == len(safetensors.torch.save(model.adapter_state_dict()))
    assert encode_record(decode_cost(encode_record(record), "x")) == encode_record(record)
    assert record.compute is not None
    assert (record.compute.merged_forward_flops_per_image is not None) == model.anatomy.mergeable


def test_operations_of_vit_b16() -> None:
    """17.58 GMAC an image with attention counted (Steiner et al. 2022, arXiv:2106.10270, say 17.58)."""
    record = profile(spec("linear", "vit_base_patch16_224", num_classes=100, batch_size=2))
    assert record.compute is not None
    assert record.compute.forward_flops_per_image == pytest.approx(2 * 17.58e9, rel=0.01)
    # by hand: 197 tokens, 12 blocks of 12 D² a token and 2 L D a token for attention, the patch embedding, the head
    tokens, width = 197, 768
    block = 12 * width**2 * tokens + 2 * tokens**2 * width
    macs = 12 * block + 196 * width * 16 * 16 * 3 + width * 100
    assert record.compute.forward_flops_per_image == 2 * macs


def test_lora_adds_operations_until_it_is_merged() -> None:
    record = profile(spec("lora", rank=8, targets=("q", "v")))
    bare = profile(spec("linear"))
    assert record.compute is not None
    assert bare.compute is not None
    tokens, width = 26, 128
    added = 2 * 6 * 2 * (2 * 8 * width) * tokens
    assert record.compute.forward_flops_per_image == bare.compute.forward_flops_per_image + added
    assert record.compute.merged_forward_flops_per_image == bare.compute.forward_flops_per_image
    assert {"gelu", "native_layer_norm", "add"} <= set(record.compute.uncounted_ops)
    assert not {"mm", "addmm", "detach", "_local_scalar_dense"} & set(record.compute.uncounted_ops)


def test_the_optimizer_is_the_spec_s() -> None:
    """SGD's momentum is one number a parameter, AdamW's moments two (and a count each); nothing else differs."""
    adamw, sgd = profile(spec("full")), profile(spec("full", optimizer="sgd"))
    assert adamw.memory is not None and sgd.memory is not None and adamw.params is not None
    two, one = adamw.memory.estimated.breakdown_bytes, sgd.memory.estimated.breakdown_bytes
    assert two is not None and one is not None
    assert one.optimizer == 4 * adamw.params.trainable
    assert 0 <= two.optimizer - 2 * one.optimizer < 1000
    assert two.weights == one.weights
    assert adamw.cost_id != sgd.cost_id
    assert "optimizer" not in json.loads(encode_record(adamw))["spec"]  # as in every record before


def test_checkpointing_computes_blocks_once_more() -> None:
    plain, checkpointed = profile(spec("lora")), profile(spec("lora", gradient_checkpointing=True))
    assert plain.compute is not None
    assert checkpointed.compute is not None
    more = checkpointed.compute.train_step_flops / plain.compute.train_step_flops
    assert 1.25 < more < 1.5  # two passes become three; of the frozen matrices only the inputs' gradients are made
    assert plain.compute.forward_flops_per_image == checkpointed.compute.forward_flops_per_image


@pytest.mark.parametrize("backbone", ["swin_tiny_patch4_window7_224", "convnext_tiny", "open_clip/ViT-B-32"])
def test_other_architectures(backbone: str) -> None:
    record = profile(spec("lora", backbone))
    assert record.status == "ok"
    assert record.params is not None
    assert record.memory is not None
    assert record.memory.estimated.train_peak_allocated_bytes > 4 * record.params.total


def test_a_classifier_on_a_clip_leaves_the_text_tower_out() -> None:
    record = profile(spec("linear", "open_clip/ViT-B-32", num_classes=10))
    assert record.params is not None
    # of `visual`, less the projection of 768 to 512, which a classifier does not read
    assert record.params.total - record.params.trainable == 87_849_216 - 768 * 512


@pytest.mark.parametrize(
    ("method", "trainable", "merged_flops"),
    [("coop", 16 * 128, False), ("clip_lora", (6 + 3) * 3 * 2 * 256, True), ("promptsrc", None, False)],
)
def test_open_vocabulary_methods_have_both_towers(method: str, trainable: int | None, merged_flops: bool) -> None:
    record = profile(spec(method, "embedded/clip", num_classes=10))
    assert record.status == "ok", record.error
    assert record.params is not None and record.compute is not None
    if trainable is not None:
        assert record.params.trainable == trainable
    # the image tower once an image, and all texts once a batch
    image = profile(spec("linear", "embedded/clip", num_classes=10)).compute
    assert image is not None
    assert record.compute.forward_flops_per_image > image.forward_flops_per_image
    assert (record.compute.merged_forward_flops_per_image is not None) == merged_flops


def test_what_is_done_on_views_of_test_images_is_not_profiled() -> None:
    record = profile(spec("tpt", "embedded/clip", num_classes=10))
    assert (record.status, record.error is not None and "views" in record.error.message) == ("unsupported", True)


def test_video_methods_are_profiled_on_clips() -> None:
    [planned] = cost_specs(
        "embedded/vit",
        [("st_adapter", {})],
        SuiteProfiles(backbones=["embedded/vit"], methods=["st_adapter"], batch_size=2, num_classes=4),
        {},
        None,
    )
    assert planned.input_shape == (8, 3, 40, 40)
    record = profile(planned)
    image = profile(spec("linear", "embedded/vit", num_classes=4)).compute
    assert record.status == "ok", record.error
    assert record.compute is not None and image is not None
    assert 8 < record.compute.forward_flops_per_image / image.forward_flops_per_image < 20


def test_an_impossible_pair_is_a_record() -> None:
    record = profile(spec("vpt_deep", "convnext_tiny"))
    assert record.status == "unsupported"
    assert record.error is not None
    assert record.error.message.endswith("which has no place for more tokens")
    assert record.memory is None


@pytest.mark.parametrize(
    ("error", "status"), [(torch.OutOfMemoryError("CUDA out of memory"), "oom"), (RuntimeError("no"), "error")]
)
def test_what_is_known_stays_when_a_measurement_fails(
    error: Exception, status: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Out of memory is a result, and the estimate says how much would have been needed."""

    def fail(*arguments: Any) -> Any:
        raise error

    monkeypatch.setattr(module, "measure_speed", fail)
    record = profile(spec("lora", hardware_class="cpu:test"), CPU, speed=True)
    assert record.status == status
    assert record.error is not None
    assert record.error.phase == "speed"
    assert record.memory is not None
    assert record.params is not None
    store = Store(tmp_path)
    path = store.write_cost(record)
    assert path == tmp_path / "costs" / f"{record.cost_id}.json"
    [[again], problems] = store.load_costs()
    assert (again.status, again.memory, problems) == (status, record.memory, [])
    assert store.load() == ([], [])


def test_speed_is_compared_in_rounds() -> None:
    record = profile(spec("lora", hardware_class="cpu:test"), CPU, speed=True)
    assert record.status == "ok"
    speed = record.speed
    assert speed is not None
    assert (speed.warmup_steps, speed.timed_steps, len(speed.train_step_ms.samples)) == (3, 12, 12)
    assert speed.train_step_ms.q1 <= speed.train_step_ms.median <= speed.train_step_ms.q3
    assert speed.train_images_per_s == pytest.approx(4000 / speed.train_step_ms.median, abs=0.01)
    assert 0.1 < speed.train_step_relative_to_full < 3
    assert speed.merged is not None
    assert profile(spec("adaptformer", hardware_class="cpu:test"), CPU, speed=True).speed.merged is None  # type: ignore[union-attr]


def test_the_size_of_a_file() -> None:
    state = {
        "b": torch.zeros(3, 5),
        "a.weight": torch.zeros(7, dtype=torch.bfloat16),
        "indices": torch.zeros(2, dtype=torch.int32),
        "empty": torch.zeros(0),
    }
    assert safetensors_bytes(state) == len(safetensors.torch.save(state))
    assert safetensors_bytes({}) == len(safetensors.torch.save({}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frozen_dtype": "int8"}, "frozen_dtype=int8 needs precision=bfloat16"),
        ({"frozen_dtype": "int7"}, "Invalid enum value 'int7' - at `$.frozen_dtype`"),
        ({"precison": "bfloat16"}, "unknown field `precison`"),
    ],
)
def test_a_variant_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PeftmarkError) as error:
        spec("lora", **settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_quantisation_without_torchao_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from peftmark.backbones.anatomy import quantized

    monkeypatch.setattr(quantized, "find_spec", lambda name: None)
    with pytest.raises(PeftmarkError, match=r"needs torchao: pip install 'peftmark\[quant\]'"):
        spec("lora", precision="bfloat16", frozen_dtype="nf4")


def test_a_cost_has_an_identity() -> None:
    cost = spec("lora")
    assert cost.cost_id == spec("lora").cost_id
    others = [spec("lora", rank=4), spec("lora", batch_size=8), spec("lora", precision="bfloat16"), spec("dora")]
    others.append(spec("lora", hardware_class="cuda:NVIDIA H100"))
    assert len({cost.cost_id, *(other.cost_id for other in others)}) == 6
