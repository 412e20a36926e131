"""The memory estimate: equal to the byte to the real step's live storages, and to what the allocator was asked for."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, record_function

from peftmark.backbones import find_backbone
from peftmark.benchmark.measure.memory import LiveStorages, estimate_memory, fake, measure_memory
from peftmark.benchmark.measure.profile import batch, build, measured_step
from peftmark.benchmark.measure.speed import MeasuredStep
from peftmark.methods import make_method
from peftmark.registry import METHODS
from peftmark.results import CostSpec, MethodSpec

IMAGE_METHODS = [name for name in METHODS.expand("*") if "image" in METHODS.entry(name).metadata["tracks"]]
CPU = torch.device("cpu")
CONFIG = {name: {"keep": 0.05} for name in ("diff_pruning", "fish_mask", "magnitude_mask")}
"""Their default budget is smaller than the head on so small a backbone."""
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "checkpointing": {"gradient_checkpointing": True},
    "frozen in bfloat16": {"precision": "bfloat16", "frozen_dtype": "bfloat16"},
    "frozen in int8": {"precision": "bfloat16", "frozen_dtype": "int8"},
    "frozen in nf4": {"precision": "bfloat16", "frozen_dtype": "nf4"},
}


def spec(method: str, backbone: str = "embedded/vit", size: int = 40, batch_size: int = 8, **variant: Any) -> CostSpec:
    config = make_method(method, CONFIG.get(method)).config()
    return CostSpec(
        method=MethodSpec(name=method, version=1, config=config),
        backbone=backbone,
        input_shape=(3, size, size),
        num_classes=10,
        batch_size=batch_size,
        **variant,
    )


def new_step(cost: CostSpec) -> MeasuredStep:
    return measured_step(cost, build(cost, CPU), *batch(cost, CPU))


def faked(cost: CostSpec) -> Any:
    model = build(cost, CPU)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake(model, mode)
    with mode:
        images, labels = (
            torch.empty(cost.batch_size, *cost.input_shape),
            torch.empty(cost.batch_size, dtype=torch.int64),
        )
        return estimate_memory(measured_step(cost, model, images, labels))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", IMAGE_METHODS)
def test_a_fake_step_weighs_what_the_real_one_weighs(method: str, variant: str) -> None:
    cost = spec(method, **VARIANTS[variant])
    estimated, real = faked(cost), estimate_memory(new_step(cost))
    assert estimated == real
    parts = estimated.breakdown_bytes
    assert sum(getattr(parts, name) for name in parts.__struct_fields__) == estimated.train_peak_allocated_bytes


def allocator_peak(step: MeasuredStep) -> int:
    """Bytes that torch.profiler saw alive at the peak of the second step, without what was there before the first."""
    gc.collect()  # what an earlier test left would otherwise be freed within, and counted
    gc.disable()
    try:
        with torch.profiler.profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            step()
            with record_function("second"):
                step()
    finally:
        gc.enable()
    events = sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    begins = next(event.start_ns() for event in events if event.name() == "second")
    live = peak = 0
    for event in events:
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live if event.start_ns() >= begins else 0)
    return peak


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", IMAGE_METHODS)
def test_the_estimate_is_what_the_allocator_gives(method: str, precision: str) -> None:
    """In float32 within 1 %; in bfloat16 kernels take scratch of their own."""
    # the scratch of mona's convolutions is 2.5 % on the smaller backbone
    small = method != "mona"
    place: dict[str, Any] = {"batch_size": 32} if small else {"backbone": "vit_tiny_patch16_224", "size": 224}
    cost = spec(method, precision=precision, **place)
    step = new_step(cost)
    weights = sum(p.untyped_storage().nbytes() for p in {p.untyped_storage()._cdata: p for p in tensors(step)}.values())
    measured = allocator_peak(step) + weights
    assert measured == pytest.approx(
        estimate_memory(new_step(cost)).train_peak_allocated_bytes, rel=0.01 if precision == "float32" else 0.20
    )


def tensors(step: MeasuredStep) -> list[torch.Tensor]:
    masks = step.model.anatomy.masks.values()
    return [*step.model.parameters(), *step.model.buffers(), *masks, step.images, step.targets]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, whose allocator is compared")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["full", "linear", "lora", "adaptformer", "vpt_deep", "ssf", "bitfit"])
def test_the_estimate_is_what_a_gpu_measures(method: str, precision: str) -> None:
    cost = spec(method, "vit_small_patch16_224", 224, batch_size=32, precision=precision)
    device = torch.device("cuda")
    measured = measure_memory(measured_step(cost, build(cost, device), *batch(cost, device)))
    estimated = faked(cost)
    assert measured.train_peak_allocated_bytes == pytest.approx(estimated.train_peak_allocated_bytes, rel=0.05)
    assert measured.eval_peak_allocated_bytes == pytest.approx(estimated.eval_peak_allocated_bytes, rel=0.05)


def test_live_storages_by_hand() -> None:
    """A sum of two vectors lives while it is referenced; a view is no new storage."""
    storages = LiveStorages()
    a = torch.zeros(1000)
    storages.claim("inputs", [a])
    with storages:
        b = a + 1
        view = b[:10]
        assert storages.live == {"weights": 0, "gradients": 0, "optimizer": 0, "activations": 4000, "inputs": 4000}
        c = torch.cat((b, b))
        del c
        del b
        assert storages.live["activations"] == 4000  # the view keeps it
        del view
    assert storages.live["activations"] == 0
    assert storages.peak["activations"] == 4000 + 8000
    storages.reset_peak()
    assert sum(storages.peak.values()) == 4000


def test_a_linear_probe_by_hand() -> None:
    """Weights, the head's AdamW state of two moments and a count each, and the gradient of the head."""
    cost = spec("linear")
    memory = estimate_memory(new_step(cost))
    anatomy = find_backbone("embedded/vit").build(pretrained=False)
    head = 10 * anatomy.feature_dim + 10
    backbone = sum(p.numel() for p in anatomy.model.parameters())
    parts = memory.breakdown_bytes
    assert parts is not None
    assert parts.weights == 4 * (backbone + head)
    assert parts.optimizer == 2 * (4 * head + 4)
    assert parts.inputs == 8 * (4 * 3 * 40 * 40 + 8)
    assert parts.gradients == 0  # the peak is in the forward pass: the gradients of the last step are gone


def test_gradients_at_the_peak_of_full_fine_tuning() -> None:
    """Of a batch of one the peak is in the optimizer's step, when all gradients exist."""
    memory = estimate_memory(new_step(spec("full", batch_size=1)))
    parts = memory.breakdown_bytes
    assert parts is not None
    parameters = 4 * sum(p.numel() for p in build(spec("full"), CPU).parameters())
    assert parts.weights == parameters
    # autograd keeps the class token's gradient as a row of that of all tokens
    assert parts.gradients == parameters + 4 * 25 * 128
    assert parts.optimizer == pytest.approx(2 * parameters, rel=1e-3)


def test_what_each_saving_saves() -> None:
    """LoRA's frozen matrices take 4, 2, about 1 and about 1/2 byte a number; checkpointing keeps a block's input."""
    memory = {name: estimate_memory(new_step(spec("lora", **variant))) for name, variant in VARIANTS.items()}
    weights = {name: each.breakdown_bytes.weights for name, each in memory.items() if each.breakdown_bytes}
    model = build(spec("lora"), CPU)
    linears = [m for n, m in model.backbone.named_modules() if isinstance(m, nn.Linear) and "slots" not in n]
    entries, rows = sum(m.weight.numel() for m in linears), sum(len(m.weight) for m in linears)
    stem = model.anatomy.stem.module.weight.numel()
    plain = weights["float32"]
    assert weights["frozen in bfloat16"] == plain - 2 * (entries + stem)
    # a scale in four bytes and a zero point in one for every row
    assert weights["frozen in int8"] == plain - 2 * stem - 3 * entries + 5 * rows
    # half a byte, one for the scale of 64, four bytes for 256 of these scales' own and a table a matrix
    assert weights["frozen in nf4"] == pytest.approx(plain - 2 * stem - (4 - 0.5 - 1 / 64) * entries, rel=0.01)
    activations = {name: each.breakdown_bytes.activations for name, each in memory.items() if each.breakdown_bytes}
    assert activations["checkpointing"] < 0.6 * activations["float32"]
    assert activations["frozen in int8"] < activations["bfloat16"]  # no bfloat16 copies wait for the backward pass
    assert memory["frozen in int8"].train_peak_allocated_bytes < memory["frozen in bfloat16"].train_peak_allocated_bytes


def test_tied_tensors_are_faked_once() -> None:
    model = build(spec("vera"), CPU)  # its projections are shared by all blocks
    before = estimate_memory(MeasuredStep(model, *batch(spec("vera"), CPU), 10))
    again = faked(spec("vera"))
    assert again.breakdown_bytes.weights == before.breakdown_bytes.weights  # type: ignore[union-attr]
