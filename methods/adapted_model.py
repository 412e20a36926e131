"""A backbone that a method has changed: what is trained, saved and merged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..backbones import Anatomy
from ..backbones.anatomy.segments import Output, run_segments
from ..backbones.anatomy.slots import Insert, is_inserted
from ..errors import PeftmarkError
from .method import Method

if TYPE_CHECKING:
    from ..tasks import Objective


class AdaptedModel(nn.Module):
    """A backbone changed by a method.

    Args:
        anatomy: of the backbone; the model takes it over.
        method: adapts it.
        objective: what is asked of it; ``model.objective.loss(model(images), targets)`` is its loss.

    ``model.backbone`` is the backbone's own module, under its own parameter names.

    Attributes:
        scores: what `adapt` of the package keeps of a method that scores parameters: float tensors of their shapes, by
            their names in ``anatomy.named_parameters()``; clear it to free the memory.
    """

    def __init__(self, anatomy: Anatomy, method: Method, objective: Objective) -> None:
        super().__init__()
        self.anatomy = anatomy
        self.method = method
        self.objective = objective
        self.backbone = anatomy.root
        self.scores: dict[str, Tensor] = {}
        self._start = 0
        method.adapt(anatomy)

    @property
    def output(self) -> Output:
        """What of the backbone `encode` gives."""
        return self.objective.output

    @abstractmethod
    def head_parameters(self) -> Iterable[nn.Parameter]:
        """The head's parameters: trained with every method and counted apart."""

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Images (or clips) -> what the outputs are made of (N, …, features)."""

    @contextmanager
    def start_from(self, start: int) -> Iterator[None]:
        """Within, the model takes what segment `start` of its backbone reads in place of images (or frames).

        With as many as there are segments, these are the backbone's features. See `Anatomy.segments`.
        """
        before, self._start = self._start, start
        try:
            yield
        finally:
            self._start = before

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> the backbone's `output` (N, …, features); see `start_from`."""
        if self._start == 0:
            return getattr(self.anatomy, self.output)(images)
        return run_segments(self.anatomy.segments(self.output)[self._start :], images)

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, but a frozen BatchNorm keeps its running statistics."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters(recurse=False)):
                module.eval()
        return self

    def trainable_parameters(self, include_head: bool = True) -> int:
        """How many numbers training changes."""
        head = {id(parameter) for parameter in self.head_parameters()}
        masks = self.entry_masks()
        return sum(
            int(masks[name].sum()) if name in masks else parameter.numel()
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and (include_head or id(parameter) not in head)
        )

    def entry_masks(self) -> dict[str, Tensor]:
        """Masks of the parameters of which only some entries train, by their names in this model."""
        names = {id(parameter): name for name, parameter in self.named_parameters()} if self.anatomy.masks else {}
        own = dict(self.anatomy.named_parameters())
        return {names[id(own[name])]: mask for name, mask in self.anatomy.masks.items()}

    @property
    def selection(self) -> dict[str, Tensor]:
        """Which entries of the image backbone the method chose: bool masks of the parameters' shapes.

        By their names in ``anatomy.named_parameters()``; empty of a method that chooses no single entries.
        ``adapt(…, selection=…)`` takes it. `spt` tells a whole projection of one that holds a module.
        """
        return self.method.selection(self)

    def optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Step; entries that were not chosen stay bit-identical, whatever decay and momentum would do to them.

        (FISH's and DyLoRA's official runs let AdamW move them.) They are put back from a copy that lives for this step
        only, when the activations are gone.
        """
        own = dict(self.anatomy.named_parameters()) if self.anatomy.masks else {}
        before: dict[str, Tensor] = {}
        for name, mask in self.anatomy.masks.items():
            before[name] = own[name].detach().clone()
            gradient = own[name].grad
            if gradient is not None:
                gradient.mul_(mask)
        optimizer.step()
        with torch.no_grad():
            for name, mask in self.anatomy.masks.items():
                own[name].copy_(torch.where(mask, own[name], before[name]))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As `nn.Module._apply` (what ``to`` and ``cuda`` call): the masks go where their parameters go."""
        super()._apply(fn, recurse)
        self.anatomy.masks = {name: fn(mask) for name, mask in self.anatomy.masks.items()}
        return self

    def inserted_parameters(self) -> int:
        """How many parameters the method put beside the backbone's own."""
        return sum(parameter.numel() for name, parameter in self.named_parameters() if is_inserted(name))

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """What was trained, head included, and nothing else: copies, on the CPU.

        Of a parameter of which only some entries train, these: ``name::values`` and, flat, ``name::indices``. The
        running statistics of a BatchNorm that trains have changed with it; inserts may have `learned_buffers`.
        """
        masks = self.entry_masks()
        state: dict[str, Tensor] = {}
        for name, parameter in self.named_parameters():
            if name in masks:
                indices = masks[name].flatten().nonzero().squeeze(1)
                state[f"{name}::indices"] = indices.to("cpu", torch.int32)
                state[f"{name}::values"] = parameter.detach().flatten()[indices].to("cpu", copy=True)
            elif parameter.requires_grad:
                state[name] = parameter.detach().to("cpu", copy=True)
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        for name, statistic in (self._running_statistics(trained) | self._learned_buffers()).items():
            state[name] = statistic.detach().to("cpu", copy=True)
        return state

    def _learned_buffers(self) -> dict[str, Tensor]:
        """What inserts have learned of the data without gradients."""
        return {
            f"{path}.{name}": attrgetter(name)(module)
            for path, module in self.named_modules()
            if isinstance(module, Insert)
            for name in module.learned_buffers
        }

    def _running_statistics(self, trained: set[str]) -> dict[str, Tensor]:
        """Buffers of each BatchNorm of which a parameter is among `trained`."""
        return {
            f"{path}.{name}": statistic
            for path, module in self.named_modules()
            if isinstance(module, _BatchNorm)
            and any(f"{path}.{name}" in trained for name, _ in module.named_parameters(recurse=False))
            for name, statistic in module.named_buffers(recurse=False)
        }

    def load_adapter_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load what `adapter_state_dict` gave on another model of the same method, configuration and backbone.

        Raises:
            PeftmarkError: where names or shapes do not fit; nothing is loaded then.
        """
        parameters = dict(self.named_parameters())
        partly = {key.removesuffix("::indices") for key in state if key.endswith("::indices")}
        trained = {name for name, parameter in parameters.items() if parameter.requires_grad} - set(self.entry_masks())
        whole = {name: parameters[name].data for name in trained}
        whole |= self._running_statistics(trained | partly) | self._learned_buffers()
        expected = set(whole) | {f"{name}::{part}" for name in partly for part in ("indices", "values")}
        wrong = sorted(set(state) ^ expected) + sorted(partly - set(parameters))
        if not wrong:
            wrong = [name for name, value in whole.items() if state[name].shape != value.shape]
            wrong += [name for name in partly if not _fits(state, name, parameters[name])]
        if wrong:
            raise PeftmarkError(
                f"the adapter does not fit: {len(wrong)} tensors differ (e.g. {wrong[0]}); "
                f"adapt with the method, configuration and classes that it was trained with"
            )
        with torch.no_grad():
            for name, value in whole.items():
                value.copy_(state[name])
            self._load_entries({name: parameters[name] for name in partly}, state)

    def _load_entries(self, parameters: dict[str, nn.Parameter], state: dict[str, Tensor]) -> None:
        """Load single entries; which ones train is what the adapter says."""
        names = {id(parameter): name for name, parameter in self.anatomy.named_parameters()}
        masks = {}
        for name, parameter in parameters.items():
            indices = state[f"{name}::indices"].to(parameter.device, torch.int64)
            parameter.view(-1)[indices] = state[f"{name}::values"].to(parameter.device)
            mask = torch.zeros(parameter.numel(), dtype=torch.bool, device=parameter.device)
            mask[indices] = True
            masks[names[id(parameter)]] = mask.view_as(parameter)
        if masks:
            self.anatomy.train_entries(masks)

    def restart(self) -> None:
        """Take out what was inserted and adapt anew, from the start of training; the backbone's weights stay."""
        self.anatomy.clear()
        self.method.adapt(self.anatomy)

    def merge(self) -> AdaptedModel:
        """Fold the method into the backbone's weights: `backbone` then has its own structure again.

        Raises:
            NotMergeable: where the method cannot be folded; the model stays as it is.
        """
        self.anatomy.merge()
        return self


def _fits(state: dict[str, Tensor], name: str, parameter: nn.Parameter) -> bool:
    indices, values = state[f"{name}::indices"], state[f"{name}::values"]
    return indices.shape == values.shape and (len(indices) == 0 or int(indices.max()) < parameter.numel())
