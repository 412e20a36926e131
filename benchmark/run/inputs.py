"""What a model reads in a run: images, or, where its first segments are frozen, what the first touched one reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...backbones import Anatomy
from ...backbones.anatomy.segments import frozen_prefix, run_segments
from ...methods import AdaptedModel, Views
from ...results import RunSpec
from ...tasks import Split, TaskData
from .memory_savings import autocast
from .normalize import Preprocess
from .prefix_cache import PrefixCache

BATCH_SIZE = 256
"""Images a batch in evaluation; fixed, so that it cannot be a reason for two runs to differ."""

AT_ONCE = 2**32
"""Bytes of preprocessed training images up to which they are made once and kept on the device."""

FEW = 4
"""Vectors from which on a matrix product maps each as it would in a larger batch; for fewer, MKL has other kernels."""

TRAIN, VALIDATION, BOTH = "train", "validation", "train+validation"


def named_test(name: str) -> str:
    """What `Inputs` calls a test split."""
    return f"test {name}"


@dataclass(frozen=True)
class Lazily:
    """Images (N, …) that are preprocessed when they are asked for: all together would be too large."""

    images: Tensor
    preprocess: Preprocess

    @property
    def device(self) -> torch.device:
        """Where indices have to be."""
        return self.images.device

    def __getitem__(self, indices: Tensor) -> Tensor:
        return self.preprocess(self.images[indices])

    def split(self, size: int) -> Iterator[Tensor]:
        return map(self.preprocess, self.images.split(size))


class Inputs:
    """A run's inputs, preprocessed, on the model's device.

    Args:
        cache: keeps them for other runs of this worker; None computes them anew, and always images.
        bare: the backbone as it was loaded; None where its weights are random.
    """

    def __init__(
        self,
        model: AdaptedModel,
        spec: RunSpec,
        data: TaskData,
        preprocess: Preprocess,
        cache: PrefixCache | None = None,
        bare: Anatomy | None = None,
    ) -> None:
        self.model = model
        self.spec = spec
        self.data = data
        self.splits = {TRAIN: data.train, VALIDATION: data.validation}
        self.splits |= {named_test(name): split for name, split in data.tests.items()}
        self.preprocess = preprocess
        self.cache = cache
        self.bare = bare
        self.train_on(TRAIN)

    def train_on(self, name: str) -> None:
        """From now on, what is trained on is the training images (`TRAIN`), or these and the validation's (`BOTH`)."""
        if name == BOTH and BOTH not in self.splits:
            self.splits[BOTH] = self.data.train_and_validation()
        self.trained_on = name
        self.labels = self.splits[name].labels.to(self.preprocess.device)

    def images(self) -> Tensor | Lazily:
        """The training images (N, …)."""
        images = self.splits[self.trained_on].images
        height, width = self.model.anatomy.image_size
        if images.shape[:-3].numel() * 3 * height * width * 4 > AT_ONCE:
            return Lazily(images, self.preprocess)
        kept = self._kept(self.trained_on, 0, "float32")
        return self.preprocess(images) if kept is None else kept.to(self.preprocess.device)

    def training(self, batch_size: int, precision: str) -> tuple[int, Tensor | Lazily]:
        """Where the model, as it is now, can start in training, and what it then reads of all training images (N, …).

        Too large for memory, that lies in a file on the host.
        """
        start = 0
        if not self.model.method.looks_at_images:
            self.model.train()
            start = self._start(training=True)
            rows = (len(self.labels) % batch_size or batch_size) * _frames(self.splits[self.trained_on])
            if rows < FEW:
                segments = self.model.anatomy.segments(self.model.output)
                start = min([start, *(index for index, segment in enumerate(segments) if segment.pooled)])
        kept = self._kept(self.trained_on, start, precision) if start > 0 else None
        if kept is None or self.cache is None:
            return 0, self.images()
        return start, kept if self.cache.is_mapped(kept) else kept.to(self.preprocess.device)

    def evaluation(self, name: str, precision: str) -> tuple[int, Iterable[Tensor]]:
        """Where the model, as it is now, can start in evaluation, and what it then reads of a split, in batches.

        With a method's `test_views`, that is views of images.
        """
        self.model.eval()
        split = self.splits[name]
        views = self.model.method.test_views()
        if views is not None:
            return 0, self._views(split.images.split(max(BATCH_SIZE // views.count, 1)), views)
        start = self._start(training=False)
        kept = self._kept(name, start, precision)
        if kept is None:
            return 0, map(self.preprocess, _batches(split.images, split))
        return start, (batch.to(self.preprocess.device) for batch in _batches(kept, split))

    def scoring_views(self, size: int, views: Views) -> Iterator[Tensor]:
        """Views of the training images, in batches of `size` images."""
        return self._views(self.splits[self.trained_on].images.split(size), views)

    def _views(self, batches: Iterable[Tensor], views: Views) -> Iterator[Tensor]:
        """Drawn from the run's seed, whatever else has drawn numbers before."""
        generator = torch.Generator().manual_seed(self.spec.seed)
        for batch in batches:
            with torch.random.fork_rng(devices=[]):
                torch.random.set_rng_state(generator.get_state())
                drawn = self.preprocess.views(batch, views)
                generator.set_state(torch.random.get_rng_state())
            yield drawn

    def _start(self, training: bool) -> int:
        if self.cache is None or self.bare is None:
            return 0
        return frozen_prefix(self.model.anatomy, self.bare, self.model.output, training)

    def _kept(self, name: str, start: int, precision: str) -> Tensor | None:
        """What segment `start` reads of a split (N, …), on the host; None without a cache, or without room in it."""
        if self.cache is None:
            return None
        spec, split = self.spec, self.splits[name]
        key: tuple[object, ...] = (spec.task, name, *self.preprocess.key)
        if start > 0:
            key += (spec.backbone, self.model.output, start, precision)
        # images and what a stem makes of them are made about as fast as they are read from a disk
        return self.cache.get(key, len(split), lambda: self._prefix(split, start, precision), may_map=start > 1)

    @torch.no_grad()
    def _prefix(self, split: Split, start: int, precision: str) -> Iterator[Tensor]:
        segments = self.model.anatomy.segments(self.model.output)[:start]
        for batch in _batches(split.images, split):
            images = self.preprocess(batch)
            frames = images.flatten(0, -4)
            with autocast(precision, frames.device):
                outputs = run_segments(segments, frames)
            yield outputs.unflatten(0, images.shape[:-3])


class TrainingBatches:
    """(images, labels) of the training split, in order; images are preprocessed only when asked for.

    With a method's `scoring_views`, the images are views (n, V, 3, H, W).
    """

    def __init__(self, inputs: Inputs, size: int) -> None:
        self.inputs = inputs
        self.size = size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self._images(), self.inputs.labels.split(self.size), strict=True)

    def _images(self) -> Iterable[Tensor]:
        views = self.inputs.model.method.scoring_views()
        return self.inputs.images().split(self.size) if views is None else self.inputs.scoring_views(self.size, views)


def _frames(split: Split) -> int:
    """Images an example: frames of a clip, in all its views."""
    return split.images.shape[1:-3].numel()


def _batches(tensor: Tensor, split: Split) -> tuple[Tensor, ...]:
    """A tensor (N, …) of a split, in evaluation batches."""
    return tensor.split(max(BATCH_SIZE // _frames(split), 1))
