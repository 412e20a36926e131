"""The record of what one method costs on one backbone: counts, memory, operations, and where it was timed, speed.

Kept apart from the records of runs, and keyed by its own spec: a run never times itself for the ranking.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import UNSET, UnsetType

from ..errors import PeftmarkError
from .nesting import check_nesting
from .record import Env, ErrorInfo, Identified, MethodSpec, Params, RecordPart, Storage, check_id, decode_as

Precision = Literal["float32", "bfloat16"]
FrozenDtype = Literal["float32", "bfloat16", "int8", "nf4"]
CostStatus = Literal["ok", "oom", "timeout", "unsupported", "error"]


def check_precision(precision: Precision, frozen_dtype: FrozenDtype) -> None:
    """Raises ValueError where products would be of different types."""
    if frozen_dtype != "float32" and precision != "bfloat16":
        raise ValueError(
            f"frozen_dtype={frozen_dtype} needs precision=bfloat16: float32 products take float32 matrices"
        )


class CostSpec(Identified, frozen=True):
    """All that decides a cost.

    Attributes:
        input_shape: of one image (channels, rows, columns), or of a clip with its frames first.
        precision: of the computation; ``bfloat16`` is autocast.
        frozen_dtype: what the frozen matrices are held in (``nf4``: QLoRA's 4 bits); all but float32 need bfloat16
            precision.
        gradient_checkpointing: whether a block's activations are computed again in the backward pass.
        optimizer: of the training step; left out, it is AdamW.
        hardware_class: where speed and memory were measured; None where nothing was, and the figures hold anywhere.
    """

    method: MethodSpec
    backbone: str
    input_shape: tuple[int, ...]
    num_classes: int
    batch_size: int
    precision: Precision = "float32"
    frozen_dtype: FrozenDtype = "float32"
    gradient_checkpointing: bool = False
    optimizer: Literal["sgd"] | UnsetType = UNSET
    hardware_class: str | None = None

    def __post_init__(self) -> None:
        check_precision(self.precision, self.frozen_dtype)
        if len(self.input_shape) not in (3, 4):
            raise ValueError("input_shape is that of an image, three numbers, or of a clip, four")

    @property
    def cost_id(self) -> str:
        return self.id


class MemoryBreakdown(RecordPart, frozen=True):
    """Bytes alive at the peak of a training step, by what they are."""

    weights: int
    """Parameters, buffers and masks."""
    gradients: int
    optimizer: int
    activations: int
    """Everything else that is alive then: what the backward pass needs, and temporaries."""
    inputs: int


class Memory(RecordPart, frozen=True):
    """Peaks of one training step (the second: the optimizer's state exists) and of one inference batch."""

    train_peak_allocated_bytes: int
    train_peak_reserved_bytes: int | None
    eval_peak_allocated_bytes: int
    breakdown_bytes: MemoryBreakdown | None
    """None where it was read from a device's allocator, which knows no parts."""


class MemoryCost(RecordPart, frozen=True):
    estimated: Memory
    """From the sizes of the tensors of a step that computes nothing: needs no GPU (see `benchmark.measure.memory`)."""
    measured: Memory | None
    """From the allocator of a GPU."""


class Timing(RecordPart, frozen=True):
    """Milliseconds."""

    median: float
    q1: float
    q3: float
    samples: list[float]


class InferenceSpeed(RecordPart, frozen=True):
    images_per_s: float
    """At the spec's batch size."""
    batch1_ms: Timing


class Speed(RecordPart, frozen=True):
    """Timed in rounds with full fine-tuning and with the bare backbone, so that ratios are of one run."""

    train_step_ms: Timing
    train_images_per_s: float
    inference: InferenceSpeed
    merged: InferenceSpeed | None
    """After `merge`; None where the method cannot be merged."""
    warmup_steps: int
    timed_steps: int
    threads: int
    train_step_relative_to_full: float
    """Median of the ratios, round by round."""
    inference_relative_to_bare: float


class Compute(RecordPart, frozen=True):
    """Floating-point operations, two a multiply-add, of matrix products, convolutions and attention."""

    forward_flops_per_image: int
    merged_forward_flops_per_image: int | None
    train_step_flops: int
    uncounted_ops: list[str]
    """Other operations of a training step; they do work in proportion to their tensors' sizes."""


class CostRecord(RecordPart, frozen=True):
    schema_version: int
    cost_id: str
    spec: CostSpec
    status: CostStatus
    env: Env
    created: str
    """UTC, ISO 8601."""
    error: ErrorInfo | None = None
    params: Params | None = None
    storage: Storage | None = None
    memory: MemoryCost | None = None
    compute: Compute | None = None
    speed: Speed | None = None


def decode_cost(data: bytes, source: str | Path, expected: CostSpec | None = None) -> CostRecord:
    """Read and check one cost record; arguments and errors are those of `decode_record`."""
    record = decode_as(CostRecord, data, source)
    check_nesting(source, record.spec.method.config)
    check_id("cost_id", record.cost_id, record.spec, expected, source)
    if record.status == "ok" and (record.memory is None or record.compute is None):
        raise PeftmarkError(f"{source}: a cost record of status ok has memory and compute")
    return record
