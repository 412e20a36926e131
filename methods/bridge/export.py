"""An adapted model as a folder that Hugging Face PEFT loads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from ...backbones import Anatomy
from ...errors import PeftmarkError, Unsupported
from ...results.files import write_atomically
from ..adapted_model import AdaptedModel
from ..headed_model import HeadedModel
from .library import CONFIG, WEIGHTS, import_peft


def export_peft(model: AdaptedModel, folder: str | Path) -> Path:
    """Write what was trained as PEFT does: ``adapter_config.json`` and ``adapter_model.safetensors``.

    ``peft.PeftModel.from_pretrained(whole, folder)`` gives a model of equal logits, where `whole` is the library's own
    model with the backbone's weights and a classifier of as many classes: ``timm.create_model(NAME, num_classes=N)``,
    ``transformers.ViTForImageClassification``. The classifier is among PEFT's ``modules_to_save``. With an open
    vocabulary `whole` is the vision-language model.

    Args:
        folder: made; no files of these names may be in it.

    Returns:
        The folder.

    Raises:
        PeftmarkError: where PEFT is not installed, or the folder cannot be written.
        Unsupported: where PEFT has no such method, or its libraries no such model.
    """
    peft, folder = import_peft("to write a PEFT folder"), Path(folder)
    anatomy = model.anatomy
    adapter = model.method.to_peft(anatomy)
    if anatomy.library_prefix is None:
        raise Unsupported(
            f"PEFT names the layers of timm's and transformers' models; {anatomy.name} has layers that its library's "
            f"own model has not (q, k and v of a packed nn.MultiheadAttention)"
        )
    prefix = anatomy.library_prefix
    head = _head(model)
    settings = {key: _with_prefix(value, prefix) for key, value in adapter.settings.items()}
    config = peft.PEFT_TYPE_TO_CONFIG_MAPPING[adapter.kind](
        target_modules=_targets(anatomy, prefix, list(adapter.layers)),
        modules_to_save=[anatomy.classifier] if head else None,
        base_model_name_or_path=anatomy.name,
        inference_mode=True,
        **settings,
    )
    tensors = {f"base_model.{name}": tensor for name, tensor in adapter.shared.items()}
    for layer, parts in adapter.layers.items():
        tensors |= {f"base_model.model.{prefix}{layer}.{name}": tensor for name, tensor in parts.items()}
    tensors |= {f"base_model.model.{anatomy.classifier}.{name}": tensor for name, tensor in head.items()}
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    files = {CONFIG: _json(config), WEIGHTS: safetensors.torch.save(kept, {"format": "pt"})}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = [name for name in files if (folder / name).exists()]
        if there:
            raise PeftmarkError(f"there is an {there[0]} in {folder} already: name another folder")
        for name, content in files.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise PeftmarkError(f"cannot write to {folder} ({error.strerror}): name another folder") from error
    return folder


def _head(model: AdaptedModel) -> dict[str, Tensor]:
    """The classifier's tensors; empty where the model has no head."""
    if not isinstance(model, HeadedModel):
        return {}
    anatomy, head = model.anatomy, model.head
    if model.num_frames is not None:
        raise Unsupported("a PEFT folder is of a model that reads images: this one reads clips")
    if model.output != "pooled" or not isinstance(head, nn.Linear):
        kind = f"{type(head).__name__} of {model.output}"
        raise Unsupported(f"a PEFT folder has the head of a classifier of pooled features: this one is a {kind}")
    if anatomy.library_prefix is not None and anatomy.classifier is None:
        raise Unsupported(f"the library of {anatomy.name} has no model with one linear classifier on its features")
    names = (name for name, _ in anatomy.model.named_modules() if name != anatomy.classifier)
    if other := next((name for name in names if name.endswith(str(anatomy.classifier))), None):
        raise Unsupported(f"PEFT would take {other} of {anatomy.name} for its classifier, too")
    return dict(head.named_parameters())


def _targets(anatomy: Anatomy, prefix: str, layers: list[str]) -> list[str] | str:
    """Names, or where PEFT would find others that end so ("norm" is "blocks.0.attn.norm", too), a pattern of them."""
    others = {name for name, _ in anatomy.model.named_modules()} - set(layers)
    names = [f"{prefix}{name}" for name in layers]
    alike = any(f"{prefix}{name}".endswith(f".{target}") for name in others for target in names)
    return "|".join(map(re.escape, names)) if alike else names


def _with_prefix(value: Any, prefix: str) -> Any:
    """Layers' names in the library's model: a config's patterns by layer and lists of layers."""
    if isinstance(value, dict):
        return {f"{prefix}{name}": each for name, each in value.items()}
    return [f"{prefix}{name}" for name in value] if isinstance(value, list) else value


def _json(config: Any) -> bytes:
    """As PEFT writes it, but sets in order: the same adapter is the same bytes."""
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    return (json.dumps(plain, indent=2, sort_keys=True) + "\n").encode()
