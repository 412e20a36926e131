"""A backbone by name: which builder makes it, from which weights."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from pathlib import Path

import torch

from ..errors import PeftmarkError
from ..registry import BACKBONES
from .anatomy.anatomy import Anatomy
from .weights import sha256_of, weights_in

RANDOM = "random"
"""What a spec says of weights that are drawn, not loaded."""


class Backbone(ABC):
    """One backbone, not built yet. A subclass is the builder of one backbone family.

    Args:
        name: the full name, e.g. ``"timm/vit_base_patch16_224.orig_in21k"``.
        checkpoint: a local weights file that replaces the named weights.
    """

    def __init__(self, name: str, checkpoint: Path | None = None) -> None:
        self.name = name
        self.checkpoint = checkpoint

    @abstractmethod
    def weights_file(self) -> Path:
        """The file that holds the pretrained weights, fetched if need be.

        Raises:
            PeftmarkError: where it cannot be had; the message names the file to put where.
        """

    @abstractmethod
    def build(self, pretrained: bool) -> Anatomy:
        """Make the model, frozen. ``pretrained=False`` draws its weights and never touches the network."""

    def input_shape(self) -> tuple[int, ...]:
        """Of one image as the backbone reads it; a builder that knows it without making the model says so."""
        with torch.device("meta"):
            return self.build(pretrained=False).input.shape

    def weights_id(self, pretrained: bool) -> str:
        """The sha256 of the weights' file, or ``"random"``."""
        return sha256_of(self.weights_file()) if pretrained else RANDOM


def find_backbone(name: str) -> Backbone:
    """The builder for a name.

    ``timm/NAME[.tag]``, ``open_clip/NAME[.tag]``, a registered name or alias, a bare name (tried in timm, then in
    open_clip), or ``NAME@FILE`` for a local checkpoint (or folder of one) with its architecture.

    Raises:
        PeftmarkError: on an unknown name or a checkpoint file that is not there.
    """
    name, checkpoint = split_checkpoint(name)
    full = full_name(name)
    return BACKBONES[full](full, checkpoint)


def split_checkpoint(name: str) -> tuple[str, Path | None]:
    """``"vit_base_patch16_224@weights.pth"`` -> the architecture and the file; None where there is no ``@``.

    Of a folder (``open_clip/ViT-B-16@FOLDER``) it is the weights file in it.

    Raises:
        PeftmarkError: where the file is not there.
    """
    name, at, file = name.partition("@")
    if not at:
        return name, None
    if file and Path(file).is_dir():
        return name, weights_in(Path(file))
    if not Path(file).is_file():
        raise PeftmarkError(f"no checkpoint file {file or 'named'}: give an existing file after the @ of {name}@")
    return name, Path(file)


def full_name(name: str) -> str:
    """``vit_base_patch16_224`` -> ``timm/vit_base_patch16_224``; a registered name stays, an alias is resolved."""
    if name in BACKBONES:
        return BACKBONES.canonical(name)
    import timm

    if timm.is_model(name.split(".")[0]):
        return f"timm/{name}"
    import open_clip

    if name.split(".")[0] in open_clip.list_models():
        return f"open_clip/{name}"
    known = [*BACKBONES.names(), *timm.list_models(), *open_clip.list_models()]
    near = difflib.get_close_matches(name, known, n=4)
    hint = f"did you mean {', '.join(near)}?" if near else "see `peftmark list backbones --all`"
    raise PeftmarkError(f"unknown backbone {name!r}: {hint}")
