"""`adapt`: a backbone by name + a method by name -> a model that can be trained, saved, merged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ..backbones import Anatomy, PackedTexts, find_backbone
from ..backbones.segments import Output, run_segments
from ..backbones.slots import Insert, is_inserted
from ..errors import PeftmarkError
from .method import Batches, Method, make_method

DEFAULT_TEMPLATES = ("a photo of a {}.",)

TEXTS_AT_ONCE = 1024
"""That are encoded where every image has texts of its own."""


class AdaptedModel(nn.Module):
    """A backbone changed by a method.

    Args:
        anatomy: of the backbone; the model takes it over.
        method: adapts it.

    ``model.backbone`` is the backbone's own module, under its own parameter names.

    Class attributes:
        output: what of the backbone `encode` gives.
    """

    output: ClassVar[Output]

    def __init__(self, anatomy: Anatomy, method: Method) -> None:
        super().__init__()
        self.anatomy = anatomy
        self.method = method
        self.backbone = anatomy.root
        self._start = 0
        method.adapt(anatomy)

    @abstractmethod
    def head_parameters(self) -> Iterable[nn.Parameter]:
        """The classifier's parameters: trained with every method and counted apart."""

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Images (or clips) -> what is classified (N, features)."""

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
        """Images (N, 3, H, W) -> the backbone's `output` (N, features); see `start_from`."""
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
            f"{path}.{name}": getattr(module, name)
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


class Classifier(AdaptedModel):
    """Features -> a linear head over `num_classes`; of a video (N, T, 3, H, W), the method's `clip_features`.

    By default each frame is normalised, then the mean is taken (as AIM does).
    """

    output = "pooled"

    def __init__(self, anatomy: Anatomy, method: Method, num_classes: int, num_frames: int | None = None) -> None:
        anatomy.drop_text()  # a linear head needs none: it would take memory and be counted
        anatomy.num_frames = num_frames
        super().__init__(anatomy, method)
        self.num_frames = num_frames
        width = anatomy.feature_dim if num_frames is None else method.clip_width(anatomy.feature_dim)
        self.head = nn.Linear(width, num_classes)
        self._reset_head()

    def _reset_head(self) -> None:
        nn.init.trunc_normal_(self.head.weight, std=0.02, a=-0.04, b=0.04)
        nn.init.zeros_(self.head.bias)

    def restart(self) -> None:
        super().restart()
        self._reset_head()

    def head_parameters(self) -> Iterable[nn.Parameter]:
        return self.head.parameters()

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W), or (N, T, 3, H, W) with ``num_frames=T`` -> what the head reads (N, its width)."""
        return self.encode(images) if self.num_frames is None else self.method.clip_features(self, images)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W), or (N, T, 3, H, W) with ``num_frames=T`` -> logits (N, num_classes)."""
        return self.head(self.features(images))


class OpenVocabularyClassifier(AdaptedModel):
    """Images -> logits over class names: cosines of image and text features, by the model's own scale."""

    output = "projected"

    def __init__(self, anatomy: Anatomy, method: Method, class_names: Sequence[str], templates: Sequence[str]) -> None:
        self.templates = tuple(templates)
        anatomy.text_tower().templates = self.templates
        super().__init__(anatomy, method)
        self.text = anatomy.text_tower()
        self._text_features: Tensor | None = None
        self.set_class_names(class_names)

    def head_parameters(self) -> Iterable[nn.Parameter]:
        return ()

    def set_class_names(self, class_names: Sequence[str]) -> None:
        """Classify into other classes from now on.

        Raises:
            PeftmarkError: on an empty list, an empty name or a name that stands there twice.
        """
        names = tuple(class_names)
        if not names or any(not name.strip() for name in names):
            raise PeftmarkError("class_names must be non-empty names")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise PeftmarkError(f"class name {twice[0]!r} stands there twice: classes need different names")
        self.class_names = names
        self._text_features = None
        self.text.set_class_names(names)

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._text_features = None  # training changes them
        return super().train(mode)

    def restart(self) -> None:
        super().restart()
        self.set_class_names(self.class_names)

    def load_adapter_state_dict(self, state: dict[str, Tensor]) -> None:
        super().load_adapter_state_dict(state)
        self._text_features = None
        self.text.set_class_names(self.class_names)  # for inserts whose state by class has changed

    def text_features(self) -> Tensor:
        """Normalised features (C, E) of the classes; kept while nothing can change them."""
        if self._text_features is not None:
            return self._text_features
        changing = self.training and self.text.trainable
        with torch.set_grad_enabled(changing and torch.is_grad_enabled()):
            features = self.class_features()
        if not changing:
            self._text_features = features
        return features

    def class_features(self) -> Tensor:
        """The same, computed anew: by the prompt, or over the templates where there is none."""
        prompt = self.text.prompt
        if prompt is None:
            return self.text.ensemble(self.class_names, self.templates)
        return F.normalize(self.text.encode(*prompt()), dim=-1)

    def text_features_for(self, features: Tensor) -> Tensor:
        """Normalised features (N, C, E) of the classes for each image's features (N, E): a conditional prompt's."""
        prompt, texts = self.text.prompt, []
        assert prompt is not None
        for part in features.split(max(TEXTS_AT_ONCE // len(self.class_names), 1)):
            embedded, ids = prompt(part)
            if isinstance(ids, PackedTexts):
                texts.append(self.text.encode(embedded, ids))
            else:
                encoded = self.text.encode(embedded.flatten(0, 1), ids.repeat(len(part), 1))
                texts.append(encoded.unflatten(0, embedded.shape[:2]))
        return F.normalize(torch.cat(texts), dim=-1)

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> normalised embeddings (N, E) in the space shared with text."""
        return self.text.image_features(self.encode(images))

    def classify(self, features: Tensor) -> Tensor:
        """Normalised image features (N, E) -> logits (N, number of class names)."""
        prompt = self.text.prompt
        if prompt is not None and prompt.conditional:
            cosines = (self.text_features_for(features) @ features[:, :, None]).squeeze(2)
        else:
            cosines = features @ self.text_features().T
        return self.text.changed_logits(features, self.text.logits(cosines))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, number of class names)."""
        return self.classify(self.features(images))


def adapt(
    backbone: str | Anatomy,
    method: str | Method,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    num_frames: int | None = None,
    pretrained: bool = True,
    batches: Batches | None = None,
    **config: Any,
) -> AdaptedModel:
    """Make a model of a backbone and a method.

    Args:
        backbone: a name (see `peftmark.backbones.find_backbone`) or an anatomy that the model may take over.
        method: a name, its hyper-parameters in `config`; or a method object.
        num_classes: of a linear classifier. Exactly one of `num_classes` and `class_names` is given.
        class_names: an open-vocabulary classifier over these names, written into `templates` ("a photo of a {}.").
        num_frames: frames T of a clip; images are then (N, T, 3, H, W).
        pretrained: load the backbone's weights; False draws them and never touches the network.
        batches: (images, labels) for methods that score parameters on data.

    Returns:
        A model in training mode; (N, 3, H, W) -> (N, num_classes).

    Raises:
        PeftmarkError: on unknown names, bad hyper-parameters, weights that cannot be had.
        Unsupported: where the method cannot work on the backbone.

    >>> import torch
    >>> model = adapt("vit_tiny_patch16_224", method="lora", num_classes=10, pretrained=False, rank=4)
    >>> model(torch.zeros(2, 3, 224, 224)).shape
    torch.Size([2, 10])
    >>> model.trainable_parameters(include_head=False)
    36864
    """
    if (num_classes is None) == (class_names is None):
        raise PeftmarkError("give num_classes=N for a linear classifier, or class_names=[…] for an open vocabulary")
    if isinstance(method, str):
        method = make_method(method, config)
    elif config:
        method = replace(method, **config)
    if isinstance(backbone, str):
        backbone = find_backbone(backbone).build(pretrained and method.pretrained)
    if class_names is not None:
        model: AdaptedModel = OpenVocabularyClassifier(backbone, method, class_names, templates)
    else:
        assert num_classes is not None
        model = Classifier(backbone, method, num_classes, num_frames)
    if batches is not None:
        method.prepare(model, batches)
    elif method.needs_batches:
        raise PeftmarkError(
            f"{type(method).__name__} scores parameters on data: give batches=, an iterable of (images, labels) pairs"
        )
    return model.train()
