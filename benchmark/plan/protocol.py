"""Protocols: how every method of a track is trained and evaluated. Versioned data that stay (``protocols/*.toml``)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from ...errors import PeftmarkError
from ...results import FAITHFUL, ProtocolSpec
from ...results.cost import FrozenDtype, Precision, check_precision
from .preset import CHANGED

PROTOCOLS = Path(__file__).parent.parent / "protocols"

FinalTraining = Literal["train", "train+validation"]


class Protocol(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One protocol. A record made under changed settings carries the changes and leaves the ranking.

    Attributes:
        epochs, batch_size: of training; the last, smaller batch is kept.
        weight_decay: on tensors with two axes or more; biases, norms and scales are not decayed.
        schedule, warmup_epochs: linear warm-up, then cosine to zero (or constant), by step.
        normalization: the mean and standard deviation of pixels: those the weights were trained with, or ImageNet's.
        final_training: what the model that is tested is trained on. After ``train+validation`` no validation figure is
            left; what a method chooses before (a phase of search) it chooses on the validation split, trained on train.
        precision: of training and evaluation; ``bfloat16`` is autocast.
        frozen_dtype: what the matrices that do not train are held in (see `backbones.anatomy.quantized.hold`).
        gradient_checkpointing: whether the backward pass computes a block's activations again.
        learning_rates: by method family; a family that is not listed gets `default_learning_rate`.
        method_learning_rates: by method, for those that their family's rate does not fit.
        learning_rate: one rate for all, in place of these.
        head_learning_rate: of the head, whatever the method's; None where the head trains at the method's.
        preset: whose settings these are, where a preset has changed them: ``faithful``, or ``faithful, with changes``.
    """

    name: str
    version: int
    epochs: int
    batch_size: int
    optimizer: Literal["adamw", "sgd"]
    weight_decay: float
    schedule: Literal["cosine", "constant"]
    warmup_epochs: float
    precision: Precision
    normalization: Literal["backbone", "imagenet"] = "backbone"
    final_training: FinalTraining = "train"
    frozen_dtype: FrozenDtype = "float32"
    gradient_checkpointing: bool = False
    learning_rates: dict[str, float]
    method_learning_rates: dict[str, float] = {}
    default_learning_rate: float = 1e-3
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    preset: str = ""

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1 or self.warmup_epochs < 0:
            raise ValueError("epochs and warmup_epochs must not be negative, batch_size must be at least 1")
        if self.preset not in ("", FAITHFUL, CHANGED):
            raise ValueError(f"there is no preset {self.preset!r}: leave it out, or use --preset {FAITHFUL}")
        check_precision(self.precision, self.frozen_dtype)

    def learning_rate_of(self, method: str, family: str) -> float:
        if self.learning_rate is not None:
            return self.learning_rate
        by_family = self.learning_rates.get(family, self.default_learning_rate)
        return self.method_learning_rates.get(method, by_family)


def load_protocol(name: str, overrides: Mapping[str, Any] | None = None) -> Protocol:
    """A protocol by its file's stem (``embedded-v1``), with some settings changed.

    Raises:
        PeftmarkError: on an unknown protocol or setting, or a value of the wrong type.
    """
    path = PROTOCOLS / f"{name}.toml"
    if Path(name).name != name or not path.is_file():
        known = sorted(file.stem for file in PROTOCOLS.glob("*.toml"))
        raise PeftmarkError(f"unknown protocol {name!r}: there is {', '.join(known)}")
    try:
        protocol = msgspec.toml.decode(path.read_bytes(), type=Protocol)
        return _override(protocol, overrides or {})
    except msgspec.MsgspecError as error:
        raise PeftmarkError(f"protocol {name}: {error}") from error


def protocol_of(spec: ProtocolSpec) -> Protocol:
    """The protocol that a spec was planned under, with the spec's overrides."""
    return load_protocol(f"{spec.name}-v{spec.version}", spec.overrides)


def _override(protocol: Protocol, overrides: Mapping[str, Any]) -> Protocol:
    fields = set(Protocol.__struct_fields__) - {"name", "version", "learning_rates", "method_learning_rates"}
    for key in overrides:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(fields))}"
            raise PeftmarkError(f"protocol {protocol.name}-v{protocol.version} has no setting {key!r}: {hint}")
    return msgspec.convert(msgspec.structs.asdict(protocol) | dict(overrides), Protocol, strict=False)
