"""What a model reads in a run: inputs, or, where its first segments are untouched, what the first touched one reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...backbones import Anatomy, InputKind
from ...backbones.anatomy.prefix import untouched_prefix
from ...backbones.anatomy.segments import run_segments
from ...methods import AdaptedModel, Views
from ...results import RunSpec
from ...tasks import Split, Targets, TaskData
from .memory_savings import autocast
from .prefix_cache import PrefixCache

BATCH_SIZE = 256
"""Images a batch in evaluation; fixed, so that it cannot be a reason for two runs to differ."""

AT_ONCE = 2**32
"""Bytes of prepared training inputs up to which they are made once and kept on the device."""

FEW = 4
"""Vectors from which on a matrix product maps each as it would in a larger batch; for fewer, MKL has other kernels."""

TRAIN, VALIDATION, BOTH = "train", "validation", "train+validation"


def named_test(name: str) -> str:
    """What `Inputs` calls a test split."""
    return f"test {name}"


@dataclass(frozen=True)
class Lazily:
    """A task's inputs (N, …) that are prepared when they are asked for: all together would be too large.

    Attributes:
        target: the device that the prepared ones are on.
    """

    raw: Tensor
    kind: InputKind
    target: torch.device

    @property
    def device(self) -> torch.device:
        """Where indices have to be."""
        return self.raw.device

    def __getitem__(self, indices: Tensor) -> Tensor:
        return self.kind.prepare(self.raw[indices], self.target)

    def split(self, size: int) -> Iterator[Tensor]:
        return (self.kind.prepare(part, self.target) for part in self.raw.split(size))


class Inputs:
    """A run's inputs, prepared, on the model's device.

    Args:
        kind: of the inputs, as the protocol has them prepared.
        cache: keeps them for other runs of this worker; None computes them anew, from the task's examples.
        bare: the backbone as it was loaded; None where its weights are random.
    """

    def __init__(
        self,
        model: AdaptedModel,
        spec: RunSpec,
        data: TaskData,
        kind: InputKind,
        device: torch.device,
        cache: PrefixCache | None = None,
        bare: Anatomy | None = None,
    ) -> None:
        self.model = model
        self.spec = spec
        self.data = data
        self.splits = {TRAIN: data.train, VALIDATION: data.validation}
        self.splits |= {named_test(name): split for name, split in data.tests.items()}
        self.kind = kind
        self.device = device
        self.cache = cache
        self.bare = bare
        self.train_on(TRAIN)

    def train_on(self, name: str) -> None:
        """From now on, what is trained on is the training split (`TRAIN`), or this and the validation's (`BOTH`)."""
        if name == BOTH and BOTH not in self.splits:
            self.splits[BOTH] = self.data.train_and_validation()
        self.trained_on = name
        self.targets: Targets = self.splits[name].targets.to(self.device)

    def prepared(self) -> Tensor | Lazily:
        """The training inputs (N, …)."""
        raw = self.splits[self.trained_on].inputs
        if self._leading(raw).numel() * torch.Size(self.kind.shape).numel() * 4 > AT_ONCE:
            return Lazily(raw, self.kind, self.device)
        kept = self._kept(self.trained_on, 0, "float32")
        return self._prepare(raw) if kept is None else kept.to(self.device)

    def training(self, batch_size: int, precision: str) -> tuple[int, Tensor | Lazily]:
        """Where the model, as it is now, can start in training, and what it then reads of all training inputs (N, …).

        Too large for memory, that lies in a file on the host.
        """
        start = 0
        if not self.model.method.looks_at_images:
            self.model.train()
            start = self._start(training=True)
            split = self.splits[self.trained_on]
            rows = (len(split) % batch_size or batch_size) * self._frames(split)
            if rows < FEW:
                segments = self.model.anatomy.segments(self.model.output)
                start = min([start, *(index for index, segment in enumerate(segments) if segment.pooled)])
        kept = self._kept(self.trained_on, start, precision) if start > 0 else None
        if kept is None or self.cache is None:
            return 0, self.prepared()
        return start, kept if self.cache.is_mapped(kept) else kept.to(self.device)

    def evaluation(self, name: str, precision: str) -> tuple[int, Iterable[Tensor]]:
        """Where the model, as it is now, can start in evaluation, and what it then reads of a split, in batches.

        With a method's `test_views`, that is views of images.
        """
        self.model.eval()
        split = self.splits[name]
        views = self.model.method.test_views()
        if views is not None:
            return 0, self._views(split.inputs.split(self.batch_size(split)), views)
        start = self._start(training=False)
        kept = self._kept(name, start, precision)
        if kept is None:
            return 0, map(self._prepare, split.inputs.split(self.batch_size(split)))
        return start, (batch.to(self.device) for batch in kept.split(self.batch_size(split)))

    def batch_size(self, split: Split) -> int:
        """Examples of a batch in evaluation: fewer where each is more than one image."""
        views = self.model.method.test_views()
        return max(BATCH_SIZE // (self._frames(split) if views is None else views.count), 1)

    def scoring_views(self, size: int, views: Views) -> Iterator[Tensor]:
        """Views of the training images, in batches of `size` images."""
        return self._views(self.splits[self.trained_on].inputs.split(size), views)

    def _views(self, batches: Iterable[Tensor], views: Views) -> Iterator[Tensor]:
        """Drawn from the run's seed, whatever else has drawn numbers before."""
        generator = torch.Generator().manual_seed(self.spec.seed)
        for batch in batches:
            with torch.random.fork_rng(devices=[]):
                torch.random.set_rng_state(generator.get_state())
                drawn = self.kind.crops(batch, self.device, views.count, views.scale, views.augmix)
                generator.set_state(torch.random.get_rng_state())
            yield drawn

    def _start(self, training: bool) -> int:
        if self.cache is None or self.bare is None:
            return 0
        return untouched_prefix(self.model.anatomy, self.bare, self.model.output, training)

    def _kept(self, name: str, start: int, precision: str) -> Tensor | None:
        """What segment `start` reads of a split (N, …), on the host; None without a cache, or without room in it."""
        if self.cache is None:
            return None
        spec, split = self.spec, self.splits[name]
        key: tuple[object, ...] = (spec.task, name, self.kind.key)
        if start > 0:
            key += (spec.backbone, self.model.output, start, precision)
        # inputs and what a stem makes of them are made about as fast as they are read from a disk
        return self.cache.get(key, len(split), lambda: self._prefix(split, start, precision), may_map=start > 1)

    @torch.no_grad()
    def _prefix(self, split: Split, start: int, precision: str) -> Iterator[Tensor]:
        segments = self.model.anatomy.segments(self.model.output)[:start]
        for batch in split.inputs.split(max(BATCH_SIZE // self._frames(split), 1)):
            leading, prepared = self._leading(batch), self._prepare(batch)
            with autocast(precision, self.device):
                outputs = run_segments(segments, prepared.flatten(0, len(leading) - 1))
            yield outputs.unflatten(0, leading)

    def _prepare(self, raw: Tensor) -> Tensor:
        return self.kind.prepare(raw, self.device)

    def _leading(self, raw: Tensor) -> torch.Size:
        """Of examples (N, …, *shape): (N,), (N, T) of clips, (N, V, T) of several of each."""
        return raw.shape[: raw.dim() - len(self.kind.shape)]

    def _frames(self, split: Split) -> int:
        """What the backbone reads of an example: one, the frames of a clip, in all its views."""
        return self._leading(split.inputs)[1:].numel()


class TrainingBatches:
    """(inputs, targets) of the training split, in order; inputs are prepared only when asked for.

    With a method's `scoring_views`, these are views of images (n, V, 3, H, W).
    """

    def __init__(self, inputs: Inputs, size: int) -> None:
        self.inputs = inputs
        self.size = size

    def __iter__(self) -> Iterator[tuple[Tensor, Targets]]:
        return zip(self._inputs(), self.inputs.targets.split(self.size), strict=True)

    def _inputs(self) -> Iterable[Tensor]:
        views = self.inputs.model.method.scoring_views()
        return self.inputs.prepared().split(self.size) if views is None else self.inputs.scoring_views(self.size, views)
