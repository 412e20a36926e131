"""What a method costs on a backbone: a `CostSpec` in, a `CostRecord` out."""

from __future__ import annotations

import gc
import multiprocessing
from typing import Any

import msgspec
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ...adapting import DEFAULT_TEMPLATES
from ...backbones import find_backbone
from ...errors import NotMergeable, Unsupported
from ...methods import AdaptedModel, Context, make_method, make_model
from ...results import SCHEMA_VERSION, Compute, CostRecord, CostSpec, ErrorInfo, MemoryCost, MethodSpec, Storage
from ...tasks import Objective, Targets, objective_of_track
from ..environment import environment
from ..plan.costs import main_track
from ..run.failures import error_info, status_of
from ..run.memory_savings import hold_frozen
from ..run.run import count_parameters, now
from .adapter_file import safetensors_bytes
from .flops import count_flops
from .memory import estimate_memory, fake, measure_memory
from .speed import MeasuredStep, measure_speed

SCORING_BATCH = 2
"""Images on which a method that scores parameters scores them: whichever it chooses, they cost the same."""


def profile(spec: CostSpec, device: torch.device | None = None, speed: bool = False) -> CostRecord:
    """Measure. Never raises for what a measurement can do wrong: the record's status says it.

    Args:
        device: what the spec's hardware class is of; a GPU's memory is measured there.
        speed: whether steps are timed there.
    """
    record = new_record(spec, device)
    phase = "estimate"
    try:
        record = _estimated(record)
        if device is not None and device.type == "cuda":
            phase = "memory"
            record = _measured(record, device)
        if device is not None and speed:
            phase = "speed"
            record = _timed(record, device)
    except BaseException as error:  # what is known already stays in the record
        if isinstance(error, KeyboardInterrupt) and multiprocessing.parent_process() is None:
            raise  # Ctrl-C, which a worker never gets
        return failed(record, status_of(error), error_info(error, phase))
    return record


def new_record(spec: CostSpec, device: torch.device | None) -> CostRecord:
    """Nothing is known yet."""
    return CostRecord(
        schema_version=SCHEMA_VERSION,
        cost_id=spec.cost_id,
        spec=spec,
        status="ok",
        env=environment(device or torch.device("cpu")),
        created=now(),
    )


def failed(record: CostRecord, status: Any, error: ErrorInfo) -> CostRecord:
    return msgspec.structs.replace(record, status=status, error=error)


def _estimated(record: CostRecord) -> CostRecord:
    """Counts, operations and memory from fake tensors: no computation, no memory for the weights."""
    spec = record.spec
    # which entries of a parameter train is read from real masks, and tokens are looked up in real tables
    objective = made_up_objective(spec)
    real = make_method(spec.method.name, spec.method.config).needs_batches or objective.names is not None
    with torch.device("cpu" if real else "meta"):
        model = build(spec, torch.device("cpu"))
    if real:
        params, storage = count_parameters(model), _storage(model)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake(model, mode)
    with mode:
        images = torch.empty(spec.batch_size, *spec.input_shape)
        targets = objective.made_up_targets(spec.batch_size)
        if not real:
            params, storage = count_parameters(model), _storage(model)
        memory = estimate_memory(measured_step(spec, model, images, targets))
        compute = _compute(measured_step(spec, model, images, targets))
    return msgspec.structs.replace(
        record, params=params, storage=storage, memory=MemoryCost(estimated=memory, measured=None), compute=compute
    )


def _compute(step: MeasuredStep) -> Compute:
    train = count_flops(step)
    size = len(step.images)
    step.model.requires_grad_(False)  # the counter hooks into what requires gradients, and there are none below
    forward = count_flops(step.infer).counted // size
    try:
        step.model.merge()
        merged = count_flops(step.infer).counted // size
    except NotMergeable:
        merged = None
    return Compute(
        forward_flops_per_image=forward,
        merged_forward_flops_per_image=merged,
        train_step_flops=train.counted,
        uncounted_ops=sorted(train.uncounted),
    )


def _storage(model: AdaptedModel) -> Storage:
    return Storage(adapter_bytes=safetensors_bytes(model.adapter_state_dict()))


def _measured(record: CostRecord, device: torch.device) -> CostRecord:
    assert record.memory is not None
    measured = measure_memory(measured_step(record.spec, build(record.spec, device), *batch(record.spec, device)))
    gc.collect()
    torch.cuda.empty_cache()
    return msgspec.structs.replace(record, memory=msgspec.structs.replace(record.memory, measured=measured))


def _timed(record: CostRecord, device: torch.device) -> CostRecord:
    """Compared with full fine-tuning and the bare backbone, in the same rounds and with the same savings."""
    spec = record.spec
    images, targets = batch(spec, device)

    def made(method: MethodSpec) -> MeasuredStep:
        return measured_step(spec, build(msgspec.structs.replace(spec, method=method), device), images, targets)

    step, full, bare = (made(m) for m in (spec.method, *(MethodSpec(name=n, version=1) for n in ("full", "linear"))))
    merged: MeasuredStep | None = made(spec.method)
    try:
        assert merged is not None
        merged.model.merge()
    except NotMergeable:
        merged = None
    return msgspec.structs.replace(record, speed=measure_speed(step, full, bare, merged))


def build(spec: CostSpec, device: torch.device) -> AdaptedModel:
    """The model of a spec, on random weights: of an open-vocabulary method over made-up names in one template.

    Raises:
        Unsupported: where the method cannot work on the backbone, or does its work on views of test images.
    """
    torch.manual_seed(0)
    method = make_method(spec.method.name, spec.method.config)
    objective = made_up_objective(spec)
    if method.test_views() is not None:
        raise Unsupported("what it costs to adapt to the views of each test image is not profiled")
    anatomy = find_backbone(spec.backbone).build(pretrained=False)
    frames = spec.input_shape[0] if len(spec.input_shape) > len(anatomy.input.shape) else None
    model = make_model(anatomy, method, objective, frames)
    scored = objective.made_up_targets(SCORING_BATCH)
    if method.needs_batches:
        method.prepare(model, [(torch.randn(SCORING_BATCH, *spec.input_shape), scored)])
    if model.anatomy.text is not None:  # what is written, or learned of what is written, before the first step
        images = torch.randn(SCORING_BATCH, *spec.input_shape)
        method.loss(model.train(), images, scored, Context(1, 1, _class_names(spec)))
    if next(model.parameters()).device.type != "meta":
        model = model.to(device)
    hold_frozen(model, spec.frozen_dtype)
    return model.train()


def made_up_objective(spec: CostSpec) -> Objective:
    """Of the spec's number of classes, as the method's main track asks for them."""
    return objective_of_track(main_track(spec.method.name), _class_names(spec), DEFAULT_TEMPLATES)


def _class_names(spec: CostSpec) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(spec.num_classes))


def batch(spec: CostSpec, device: torch.device) -> tuple[Tensor, Targets]:
    """Made-up inputs and targets."""
    images = torch.randn(spec.batch_size, *spec.input_shape, generator=torch.Generator().manual_seed(0))
    return images.to(device), made_up_objective(spec).made_up_targets(spec.batch_size).to(device)


def measured_step(spec: CostSpec, model: AdaptedModel, images: Tensor, targets: Targets) -> MeasuredStep:
    optimizer = spec.optimizer or "adamw"
    return MeasuredStep(
        model, images, targets, spec.num_classes, spec.precision, spec.gradient_checkpointing, optimizer
    )
