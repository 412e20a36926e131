"""What the bridge takes of Hugging Face PEFT: the library, and its layers as inserts."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn

from ...backbones import Affine, Anatomy, Insert
from ...backbones.anatomy.slots import twin
from ...errors import NotMergeable, PeftmarkError

ADAPTER = "default"
"""PEFT's name for the only adapter of a model."""

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The files of a folder that PEFT writes."""

NOT_MERGEABLE = {
    "lily": "its router weighs the low-rank experts by the input",
}
"""Tuners whose change of a layer is no change of its weights."""

# LN tuning on its only kind of layer; BOFT without a CUDA compiler
_HARMLESS = "Unsupported layer type '<class '.*Norm|Failed to load the CUDA extension|Setting boft_n_butterfly_factor"


def import_peft(what: str) -> Any:
    """The library, imported when it is needed.

    Raises:
        PeftmarkError: where it is not installed; says what needs it.
    """
    log = logging.getLogger("torch.utils._pytree")
    level = log.level
    log.setLevel(logging.ERROR)  # it imports torchao, of which torch deprecates how it registers an enumeration
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise PeftmarkError(f"{what} needs the extra: pip install peftmark[peft] (make setup EXTRAS=peft)") from error
    finally:
        log.setLevel(level)


@contextmanager
def without_harmless_warnings() -> Iterator[None]:
    """What PEFT warns of when it makes layers, and means others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_HARMLESS)
        yield


class TunerLayer(Insert):
    """One of PEFT's layers, run instead of the backbone's own module, which it calls.

    PEFT's layers hold the module that they replace (``base_layer``). Here the module stays where it was, under its own
    parameter names, the layer is what is inserted in it, and calls a twin of the module.
    """

    layer: Any
    tuner: Any

    def __init__(self, layer: nn.Module, tuner: nn.Module, not_mergeable: str | None) -> None:
        super().__init__()
        own = cast(nn.Module, layer._modules.pop("base_layer"))
        object.__setattr__(layer, "base_layer", twin(own))
        self.layer = layer
        self.share("tuner", tuner, owner=False)
        self.not_mergeable = not_mergeable

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    @property
    def foldable(self) -> bool:
        return self.not_mergeable is None

    def fold_into(self, host: Any) -> None:
        if self.not_mergeable is not None:
            raise NotMergeable(f"{type(self.tuner).__name__} cannot be folded into weights: {self.not_mergeable}")
        self.layer.merge()
        # LN tuning merges by putting its own copy in the place of the twin
        for name, parameter in self.layer.get_base_layer().named_parameters():
            host.module.get_parameter(name).copy_(parameter)


def insert_layers(
    anatomy: Anatomy,
    tuner: Any,
    names: Mapping[nn.Module, str],
    kind: str,
    settings: Mapping[str, Any],
) -> None:
    """Make the layers that a tuner has put in place of modules inserts in these.

    Args:
        names: the modules, by their names in the image backbone. kind: PEFT's name of the tuner.
        settings: the tuner's.
    """
    del anatomy.model.peft_config  # PEFT's mark for its own wrappers
    for module, name in names.items():
        layer = anatomy.model.get_submodule(name)
        insert = TunerLayer(layer, tuner, _not_mergeable(module, kind, settings))
        parent, _, child = name.rpartition(".")
        setattr(anatomy.model.get_submodule(parent), child, module)
        Affine(module, log=anatomy.log).replace(insert)


def _not_mergeable(module: nn.Module, kind: str, settings: Mapping[str, Any]) -> str | None:
    """Why what is inserted in a module cannot be folded into it."""
    adds_to_bias = kind == "beft" or settings.get("lora_bias")
    if adds_to_bias and getattr(module, "bias", None) is None:
        return "it adds to a bias, and a layer here has none"
    if settings.get("sample_at_inference"):
        return "it draws random numbers at inference"
    return NOT_MERGEABLE.get(kind)
