"""What a method is: one dataclass, its fields the hyper-parameters, `adapt` the change it makes to a backbone."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import msgspec
from torch import Tensor, nn

from ..backbones import Anatomy
from ..errors import PeftmarkError, Unsupported
from ..registry import METHODS
from .ranges import hyperparameters, range_of

if TYPE_CHECKING:
    from ..tasks import Targets
    from .adapted_model import AdaptedModel
    from .parts.peft_adapter import PeftAdapter
    from .search_space import Dimension

Batches: TypeAlias = "Iterable[tuple[Tensor, Targets]]"
"""(images, targets) pairs."""


@dataclass
class Context:
    """Where a training run is: passed to a method's hooks."""

    epochs: int
    steps_per_epoch: int
    class_names: tuple[str, ...]
    templates: tuple[str, ...] = ()
    epoch: int = 0
    step: int = 0
    """Optimizer steps done so far, over all epochs."""


@dataclass(frozen=True)
class Phase:
    """A named part of a method's training.

    Attributes:
        epochs: how long it trains, in multiples of the protocol's epochs; 0 for a phase that only looks.
        learning_rate: a factor on the protocol's learning rate.
    """

    name: str
    epochs: float = 1.0
    learning_rate: float = 1.0


@dataclass(frozen=True)
class Variant:
    """One of several models that one training gives, e.g. ``Variant("rank", 4)``."""

    axis: str
    value: int


@dataclass(frozen=True)
class Views:
    """Views of every image that a method wants: the image itself, then random crops, every other one flipped by chance.

    Attributes:
        count: the image itself included.
        scale: a crop's share of the area, uniform between these.
        augmix: mix the crops with chains of distortions, at severity 1 (Hendrycks et al. 2020, arXiv:1912.02781).
    """

    count: int
    scale: tuple[float, float] = (0.08, 1.0)
    augmix: bool = False


@dataclass
class Method:
    """Base of all methods. Fields of a subclass are its hyper-parameters: types with ranges, the paper's defaults.

    Class attributes:
        version: goes up whenever the method's results change; it is in every spec.
        pretrained: whether the backbone's pretrained weights are used (`scratch` says no).
        identity_at_start: whether an adapted model computes what the bare backbone computes until it is trained;
            a class that says no gives its paper's reason in the docstring.
        needs_batches: whether `prepare` scores parameters on training data, without which there is nothing to train.
        looks_at_images: whether `loss` does anything with images but hand them to the model, as mixup does. If not, it
            may be given what the untouched first layers make of them. A class with a `loss` of its own does unless it
            says no.

    >>> @dataclass
    ... class LastNorms(Method):
    ...     '''Train the norms of the last `k` blocks.'''
    ...
    ...     k: int = 1
    ...
    ...     def adapt(self, anatomy):
    ...         names = [f"blocks.{len(anatomy.blocks) - 1 - i}.norm" for i in range(self.k)]
    ...         anatomy.train(lambda name, parameter: name.startswith(tuple(names)))
    >>> LastNorms(k=2).config()
    {'k': 2}
    >>> import peftmark, torch
    >>> model = peftmark.adapt("vit_tiny_patch16_224", LastNorms(k=2), num_classes=5, pretrained=False)
    >>> model.trainable_parameters(include_head=False)  # 2 blocks · 2 norms · (weight, bias) · 192
    1536
    >>> model(torch.zeros(1, 3, 224, 224)).shape
    torch.Size([1, 5])
    """

    version: ClassVar[int] = 1
    pretrained: ClassVar[bool] = True
    identity_at_start: ClassVar[bool] = True
    needs_batches: ClassVar[bool] = False
    looks_at_images: ClassVar[bool] = False

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "loss" in vars(cls) and "looks_at_images" not in vars(cls):
            cls.looks_at_images = True

    def __post_init__(self) -> None:
        """What a subclass checks besides it checks after ``super().__post_init__()``.

        Raises:
            ValueError: where a field is out of the range that is declared on it.
        """
        for name, hint in hyperparameters(type(self)).items():
            if range_of(hint):
                check_value(name, getattr(self, name), hint)

    @classmethod
    def from_config(cls, name: str, config: Mapping[str, Any]) -> Method:
        """The method that is registered as `name`, with the hyper-parameters in `config` (see `make_method`)."""
        checked = check_hyperparameters(name, config, hyperparameters(cls))
        try:
            return cls(**checked)
        except ValueError as error:
            raise PeftmarkError(f"method {name!r}: {error}") from error

    @classmethod
    def defaults(cls, name: str) -> dict[str, Any]:
        """The configuration where nothing is set, as far as the method can do without settings."""
        return cls.from_config(name, {}).config()

    def adapt(self, anatomy: Anatomy) -> None:
        """Change the frozen backbone: choose what trains, insert what is new.

        Raises:
            Unsupported: where the backbone lacks a part that the method needs.
        """

    def unreached(self, anatomy: Anatomy) -> str | None:
        """A wildcard over names of trainable tensors that a loss may not depend on; None where it depends on all.

        Gradients of what it matches may be zero. A method that says so gives its reason.
        """
        return None

    def prepare(self, model: AdaptedModel, batches: Batches) -> None:
        """Look at training data once before training, for methods that score parameters on it.

        Iterating over `batches` gives the training images (preprocessed) and targets once, in their own order;
        iterating again gives them again. With `scoring_views` these are views (N, V, 3, H, W).
        """

    def selection(self, model: AdaptedModel) -> dict[str, Tensor]:
        """What `AdaptedModel.selection` tells."""
        return dict(model.anatomy.masks)

    def scoring_views(self) -> Views | None:
        """The views of training images that `prepare` wants; None for the images."""
        return None

    def test_views(self) -> Views | None:
        """The views of test images that `predict` wants; None for the images."""
        return None

    def predict(self, model: AdaptedModel, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) of a test, or their views (N, V, 3, H, W), -> logits (N, classes).

        A method that adapts to the images leaves the model as it was.
        """
        return model(images)

    def clip_features(self, model: AdaptedModel, clips: Tensor) -> Tensor:
        """Clips (N, T, 3, H, W) -> what the head reads (N, `clip_width`): by default the mean of the frames' features.

        A method that encodes other images than the frames must leave no untouched prefix (see `untouched_prefix`),
        after which `clips` are not images any more.
        """
        features = model.encode(clips.flatten(0, 1))
        return features.unflatten(0, (len(clips), -1)).mean(dim=1)  # of T, or of one where a method joined the frames

    def clip_width(self, feature_dim: int) -> int:
        """The width of `clip_features`, given that of an image's."""
        return feature_dim

    def loss(self, model: AdaptedModel, images: Tensor, targets: Targets, context: Context) -> Tensor:
        """The training loss of one batch, by default what the task's objective says of the model's outputs."""
        return model.objective.loss(model(images), targets)

    def after_backward(self, model: AdaptedModel, context: Context) -> None:
        """Look at or change gradients before the optimizer's step."""

    def epsilon(self) -> float:
        """AdamW's, where the protocol trains with it: torch's own by default."""
        return 1e-8

    def phases(self) -> Sequence[Phase]:
        """The parts of the training, in order; the model is evaluated after the last one."""
        return (Phase("train"),)

    def begin_phase(self, name: str, model: AdaptedModel, score: Callable[[], float]) -> None:
        """Called before a phase of `phases` trains.

        `score` measures the model as it is on the validation split: the objective's metric (accuracy in percent, say),
        negated where a lower one is better.
        """

    def found(self) -> dict[str, Any]:
        """What the method chose for itself in training, e.g. an architecture, as plain data for the record."""
        return {}

    def variants(self) -> Sequence[Variant]:
        """The models that one training gives, each to be evaluated; the one that training leaves is the method's."""
        return ()

    def select(self, model: AdaptedModel, variant: Variant) -> None:
        """Make `model` the given one of `variants`."""

    def after_step(self, model: AdaptedModel, context: Context) -> None:
        """Look at or change parameters after the optimizer's step, which `context.step` counts; gradients are there."""

    def search_space(self) -> Mapping[str, Dimension]:
        """What of the method is searched when it is tuned, by field; the same for every task.

        Its learning rate always is, between its family's bounds unless there is a ``learning_rate`` here. What changes
        how much is trained is not searched: a tuned row costs what the default's costs.
        """
        return {}

    def to_peft(self, anatomy: Anatomy) -> PeftAdapter:
        """What the method made of a backbone that it adapted, as Hugging Face PEFT would save it.

        Raises:
            Unsupported: where PEFT has no such method, or cannot do this to this backbone.
        """
        raise Unsupported(f"{type(self).__name__} has no equal among PEFT's tuners")

    def start_head(self, head: nn.Module) -> None:
        """Start a head otherwise than its objective does, which has just reset it."""

    def config(self) -> dict[str, Any]:
        """Every hyper-parameter, defaults included, as plain data."""
        return dict(msgspec.to_builtins(self))


def make_method(name: str, config: Mapping[str, Any] | None = None) -> Method:
    """A method by name, with some of its hyper-parameters set.

    Raises:
        PeftmarkError: on an unknown method, an unknown hyper-parameter, a value of the wrong type or out of range.

    >>> make_method("lora", {"rank": 4})
    LoRA(rank=4, alpha=8.0, dropout=0.0, targets=('q', 'v'))
    >>> make_method("lora", {"rank": 0})
    Traceback (most recent call last):
    peftmark.errors.PeftmarkError: method 'lora': rank=0 is not valid: Expected `int` >= 1
    """
    return METHODS[name].from_config(name, dict(config or {}))


def check_hyperparameters(name: str, config: Mapping[str, Any], hints: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `config` as the types in `hints` have them.

    Raises:
        PeftmarkError: on a key that `hints` has not, or a value that is not of its type or range.
    """
    checked = {}
    for key, value in config.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(hints)) or 'none'}"
            raise PeftmarkError(f"method {name!r} has no hyper-parameter {key!r}: {hint}")
        try:
            checked[key] = check_value(key, value, hints[key])
        except ValueError as error:
            raise PeftmarkError(f"method {name!r}: {error}") from error
    return checked


def check_value(name: str, value: Any, hint: Any) -> Any:
    """The value as its type has it. Raises ValueError where it is of another type, or out of the type's range."""
    try:
        return msgspec.convert(value, hint, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"{name}={value!r} is not valid: {error}") from error
