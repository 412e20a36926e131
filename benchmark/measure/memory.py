"""Peak memory of a training step and of inference, from the sizes of tensors: on fake ones it needs no GPU.

A dispatch mode sees every storage that comes into being and learns when it dies. Under `FakeTensorMode` the step
computes nothing but shapes; the sizes, and the times at which storages live and die, are those of the real step.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...backbones.anatomy.quantized import is_quantized
from ...methods import AdaptedModel
from ...results import Memory, MemoryBreakdown
from ...tasks import tensors_of
from .speed import MeasuredStep

Part = Literal["weights", "gradients", "optimizer", "activations", "inputs"]
PARTS: tuple[Part, ...] = ("weights", "gradients", "optimizer", "activations", "inputs")


class LiveStorages(TorchDispatchMode):
    """Bytes of the storages that are alive, by part, and their peak.

    What an operation makes counts as activations until `claim` says otherwise.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[Part, int] = dict.fromkeys(PARTS, 0)
        self.peak: dict[Part, int] = dict(self.live)
        self._known: dict[int, tuple[Part, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._see(value)
        return result

    def claim(self, part: Part, tensors: Iterable[Tensor]) -> None:
        """Count the storages of `tensors`, known or not, as `part`."""
        for tensor in tensors:
            for plain in plain_tensors(tensor):
                key = self._see(plain)
                before, size = self._known[key]
                self.live[before] -= size
                self.live[part] += size
                self._known[key] = (part, size)

    def reset_peak(self) -> None:
        self.peak = dict(self.live)

    def _see(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            size = storage.nbytes()
            self._known[key] = ("activations", size)
            self.live["activations"] += size
            weakref.finalize(storage, self._forget, key)
            if sum(self.live.values()) > sum(self.peak.values()):
                self.peak = dict(self.live)
        return key

    def _forget(self, key: int) -> None:
        part, size = self._known.pop(key)
        self.live[part] -= size


def plain_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors that hold a tensor's data: itself, or of a quantised one the parts that it wraps."""
    if is_quantized(tensor):
        names, _ = cast(Any, tensor).__tensor_flatten__()
        for name in names:
            yield from plain_tensors(getattr(tensor, name))
    else:
        yield tensor


def estimate_memory(step: MeasuredStep) -> Memory:
    """Peaks of the second training step and of inference, from the storages that live.

    Args:
        step: new, on real tensors, or on fake ones (see `fake`) with their mode around the call.
    """
    model, inputs = step.model, (step.images, *tensors_of(step.targets))
    storages = LiveStorages()
    storages.claim("weights", _weights(model))
    storages.claim("inputs", inputs)
    handles = [
        parameter.register_post_accumulate_grad_hook(lambda p: storages.claim("gradients", [p.grad]))
        for parameter in step.trained
    ]
    model.train()
    with storages:
        step()
        if step.training.optimizer is not None:
            state = (value for values in step.training.optimizer.state.values() for value in values.values())
            storages.claim("optimizer", (value for value in state if isinstance(value, Tensor)))
        storages.reset_peak()
        step()
    train = storages.peak
    for handle in handles:
        handle.remove()
    for parameter in step.trained:
        parameter.grad = None

    evaluation = LiveStorages()
    evaluation.claim("weights", _weights(model))
    evaluation.claim("inputs", inputs)
    evaluation.reset_peak()
    with evaluation:
        step.infer()
    return Memory(
        train_peak_allocated_bytes=sum(train.values()),
        train_peak_reserved_bytes=None,
        eval_peak_allocated_bytes=sum(evaluation.peak.values()),
        breakdown_bytes=MemoryBreakdown(**train),
    )


def _weights(model: AdaptedModel) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
    yield from model.anatomy.masks.values()


STEPS = 3
"""Training steps of which a GPU's peak is read: the first of them may pick other kernels than the rest."""


def measure_memory(step: MeasuredStep) -> Memory:
    """The same peaks from the allocator of the GPU that a new step is on, which must hold nothing else."""

    def steps() -> None:
        for _ in range(STEPS):
            step()

    step()  # the optimizer's state exists
    allocated, reserved = _device_peak(steps)
    step.training.optimizer = None
    for parameter in step.trained:
        parameter.grad = None
    evaluated, _ = _device_peak(step.infer)
    return Memory(
        train_peak_allocated_bytes=allocated,
        train_peak_reserved_bytes=reserved,
        eval_peak_allocated_bytes=evaluated,
        breakdown_bytes=None,
    )


def _device_peak(call: Callable[[], object]) -> tuple[int, int]:
    """Allocated and reserved."""
    torch.cuda.synchronize()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def fake(model: AdaptedModel, mode: FakeTensorMode) -> None:
    """Put fake tensors of `mode`, on a CPU that is not there, in the place of `model`'s, in place.

    Tensors that shared a storage share one again. The model may be on the meta device.
    """
    storages: dict[int, Tensor] = {}
    made: dict[int, Any] = {}

    def plain(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        with mode:
            if storage._cdata not in storages:
                storages[storage._cdata] = torch.empty(storage.nbytes(), dtype=torch.uint8)
            flat = storages[storage._cdata].view(tensor.dtype)
            return flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def any_tensor(tensor: Tensor) -> Tensor:
        if not is_quantized(tensor):
            return plain(tensor)
        names, context = cast(Any, tensor).__tensor_flatten__()
        inner = {name: any_tensor(getattr(tensor, name)) for name in names}
        kind = cast(Any, type(tensor))
        return cast(Tensor, kind.__tensor_unflatten__(inner, context, tensor.shape, tensor.stride()))

    def replaced(tensor: Any) -> Any:
        if tensor is None:
            return None
        if id(tensor) not in made:
            new = any_tensor(tensor.detach())
            if isinstance(tensor, nn.Parameter):
                new = nn.Parameter(new, requires_grad=tensor.requires_grad)
            made[id(tensor)] = (tensor, new)  # the old one is kept: its id must not be given to another
        return made[id(tensor)][1]

    for module in model.modules():
        for kept in (module._parameters, module._buffers):
            for name in kept:
                kept[name] = replaced(kept[name])
    model.anatomy.masks = {name: replaced(mask) for name, mask in model.anatomy.masks.items()}
