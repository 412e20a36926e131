"""Weights for open_clip models: the forms in which checkpoints lie about, and what of an architecture they ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed
from torch import Tensor, nn

from ...errors import PeftmarkError
from ..weights import Checkpoint, load_exactly, load_state_dict

OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")
"""What the state of an archive by OpenAI holds beside the parameters."""
IMAGES = ("mean", "std")
"""What is taken of the preprocessing in a saved open_clip_config.json."""


class Weights(Checkpoint):
    """A checkpoint as read, its parameters under open_clip's names."""

    def load_into(self, model: nn.Module) -> None:
        """Copy the parameters into a model of the architecture with these `settings`.

        Raises:
            PeftmarkError: where names or shapes do not fit.
        """
        state = convert_state_dict(cast(Any, model), dict(self.state))  # Apple's own MobileCLIP files
        if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
            state = convert_to_custom_text_state_dict(state)
        for name in ("logit_scale", "logit_bias"):  # of shape (1,) in some files
            if name in state and isinstance(own := getattr(model, name, None), Tensor):
                state[name] = state[name].reshape(own.shape)
        try:
            self._resample_positions(model, state)
        except RuntimeError as error:
            raise PeftmarkError(f"{self.file} does not fit the architecture: {error}") from error
        load_exactly(self.file, model, state)

    @staticmethod
    def _resample_positions(model: nn.Module, state: dict[str, Tensor]) -> None:
        """Of images, where their grid differs; texts of another length stay a mistake."""
        name = "visual.positional_embedding"
        if name in state:
            state[name] = state[name].float()  # the CPU interpolates no halves
            resize_pos_embed(state, model)


def read_weights(file: Path, config: dict[str, Any]) -> Weights:
    """A checkpoint of open_clip, OpenAI or DeCLIP, by its names, with the open_clip_config.json beside it.

    Args:
        config: of the architecture.

    Raises:
        PeftmarkError: where the file cannot be read, or the configuration beside it is of another architecture.
    """
    state = {name.removeprefix("module."): value for name, value in load_state_dict(file).items()}
    if any(name.startswith("encode_text.") for name in state):
        return _declip(file, state, config)
    weights = Weights(file, state, quick_gelu=any(name in state for name in OPENAI_EXTRAS))
    for name in OPENAI_EXTRAS:
        state.pop(name, None)
    saved = file.with_name("open_clip_config.json")
    if saved.is_file():
        images = _check_config(saved, config)
        weights.mean, weights.std = images.get("mean"), images.get("std")
    return weights


def _check_config(saved: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Compare the configuration that open_clip saved beside weights with the architecture's.

    Activations and numbers of heads are in no tensor's shape. The images' size may differ: positions are resampled.

    Returns:
        How images are preprocessed, as the configuration says it.

    Raises:
        PeftmarkError: where it is damaged, or of another architecture.
    """
    try:
        content = json.loads(saved.read_text())
        theirs, ours = _flat(content["model_cfg"]), _flat(config)
        images = {name: tuple(value) for name, value in content.get("preprocess_cfg", {}).items() if name in IMAGES}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PeftmarkError(
            f"{saved} is no configuration of open_clip's: it has no model_cfg that can be read"
        ) from error
    for name in sorted(set(theirs) | set(ours)):
        if name != "vision_cfg.image_size" and theirs.get(name) != ours.get(name):
            raise PeftmarkError(
                f"{saved} is of another architecture: {name} is {theirs.get(name)} there and {ours.get(name)} here; "
                "name the open_clip architecture that was saved"
            )
    return images


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"vision_cfg": {"width": 768}}`` -> ``{"vision_cfg.width": 768}``; what is false or absent is the default."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value not in (None, False):
            flat[f"{prefix}{name}"] = value
    return flat


def check_activation(name: str, weights: str, config: dict[str, Any], quick_gelu: bool) -> None:
    """Refuse weights that were trained with QuickGELU on an architecture with GELU (open_clip itself only warns).

    Args:
        name: of the architecture. weights: what follows it in a backbone's name: ``.TAG`` or ``@FILE``.

    Raises:
        PeftmarkError: it names the architecture to take.
    """
    if quick_gelu and not config.get("quick_gelu", False):
        raise PeftmarkError(
            f"the weights of open_clip/{name}{weights} were trained with QuickGELU, which {name} does not compute: "
            f"use open_clip/{name}-quickgelu{weights}"
        )


def normalisation(architecture: str, tag: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std of the images of a tag's weights; without a tag, those on which all of the architecture's agree."""
    tags = [tag] if tag else open_clip.list_pretrained_tags_by_model(architecture)
    configs = [open_clip.get_pretrained_cfg(architecture, name) for name in tags]
    found = {(tuple(config["mean"]), tuple(config["std"])) for config in configs if config}
    return found.pop() if len(found) == 1 else None


def _declip(file: Path, state: dict[str, Tensor], config: dict[str, Any]) -> Weights:
    """A checkpoint of Sense-GVT's DeCLIP and its kin (Li et al. 2022, arXiv:2110.05208; prototype/model/declip.py).

    It is a CLIP with QuickGELU, a text projection with a bias and images normalised as ImageNet's. Its vocabulary has
    a mask token in front of the start and end tokens, which here have open_clip's places. What its other losses train
    (projectors, predictors, memory banks, the masked language model's head) is left out.
    """
    if any(name.startswith("encode_text.text_transformer.") for name in state):
        raise PeftmarkError(
            f"{file} is a DeCLIP whose text tower is a Hugging Face model, which has no architecture here"
        )
    kept = {
        name.removeprefix("encode_text."): value
        for name, value in state.items()
        if name.startswith(("visual.", "encode_text.")) or name == "logit_scale"
    }
    table = kept.get("token_embedding.weight")
    if table is not None and len(table) == config["text_cfg"].get("vocab_size", 49408) + 1:
        kept["token_embedding.weight"] = torch.cat((table[:-3], table[-2:]))
    settings: dict[str, Any] = {"quick_gelu": True, "text_cfg": {**config["text_cfg"], "proj_bias": True}}
    projection = kept.get("text_projection.weight")
    if projection is not None:
        settings["embed_dim"] = len(projection)
    return Weights(file, kept, settings, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
