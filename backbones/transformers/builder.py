"""Models of Hugging Face transformers as backbones: vision-language models, and ViT."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import PeftmarkError
from ...registry import BACKBONES
from ..anatomy.anatomy import Anatomy
from ..anatomy.inputs import Pixels
from ..anatomy.parts import Block, Insertion
from ..anatomy.text import TextTower
from ..backbone import Backbone
from ..tokenizers import Tokenizer, transformers_tokenizer
from ..weights import check_keys, load_state_dict, weights_folder
from .anatomy import (
    AlignVision,
    ClipVision,
    FlavaVision,
    SiglipVision,
    TransformersAnatomy,
    VitVision,
    clip_block,
    flava_block,
)
from .text import AlignText, BertText, ClipText, SiglipText, TransformersText

OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
NOT_WEIGHTS = ("position_ids", "token_type_ids")
"""Buffers that older checkpoints hold."""


@dataclass(frozen=True)
class Family:
    """How one family of models is built and read.

    Attributes:
        model: its class in transformers. image: the name of its image tower, empty where it is nothing more.
        text: None where it has no text tower.
        library_prefix: see `Anatomy.library_prefix`.
        unused: parts that have no share in the features of images and texts, left out.
        mean, std: of its images, where no preprocessor_config.json says them.
    """

    model: str
    vision: type[Anatomy]
    text: type[TransformersText] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image: str = "vision_model"
    library_prefix: str | None = "vision_model."
    unused: tuple[str, ...] = ()


FAMILIES = {
    "clip": Family("CLIPModel", ClipVision, ClipText, *OPENAI),
    "siglip": Family("SiglipModel", SiglipVision, SiglipText, *HALF),
    "align": Family("AlignModel", AlignVision, AlignText, *HALF, unused=("text_model.pooler",)),
    "flava": Family(
        "FlavaModel",
        FlavaVision,
        BertText,
        *OPENAI,
        image="image_model",
        library_prefix="image_model.",
        unused=(
            "text_model.pooler",
            "image_model.pooler",
            "image_model.embeddings.mask_token",
            "multimodal_model",
            "image_to_mm_projection",
            "text_to_mm_projection",
        ),
    ),
    "vit": Family("ViTModel", VitVision, None, *HALF, image="", library_prefix="vit.", unused=("pooler",)),
}
"""By the ``model_type`` of a config.json."""


@BACKBONES.register("hf/*", family="transformers")
class TransformersBackbone(Backbone):
    """A CLIP, SigLIP, ALIGN, FLAVA or ViT of Hugging Face transformers: ``hf/FOLDER``, or ``hf/NAME`` of the hub.

    A folder holds config.json, model.safetensors and a text tower's tokenizer, as `save_pretrained` writes them.
    """

    @property
    def source(self) -> str:
        return self.name.removeprefix("hf/")

    def weights_file(self) -> Path:
        return self.checkpoint or self._file("model.safetensors", fetch=True)

    def _file(self, name: str, fetch: bool) -> Path:
        """A file of the model's, from its folder or from the hub's cache, where it is fetched to if it may be."""
        own = weights_folder() / "hf" / self.source
        for folder in (Path(self.source), own):
            if (folder / name).is_file():
                return folder / name
        if Path(self.source).is_dir():
            raise PeftmarkError(f"{self.name}: there is no {name} in this folder")
        from huggingface_hub import hf_hub_download

        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries would bury the one clear line
        try:
            return Path(hf_hub_download(self.source, name, local_files_only=not fetch))
        except Exception as error:  # offline, refused, gone: the user's way out is the same
            raise PeftmarkError(
                f"{name} of {self.name} is not here and cannot be downloaded ({type(error).__name__}): put the "
                f"model's config.json, model.safetensors and tokenizer files into {own}, or name their folder as "
                f"hf/FOLDER"
            ) from error

    def build(self, pretrained: bool) -> Anatomy:
        library = _transformers()
        folder = self._file("config.json", fetch=pretrained).parent
        with _quiet(library):
            config = self._config(library, folder)
            family = FAMILIES[config.model_type]
            model_class = getattr(library, family.model)
            model = self._loaded(model_class, config, family.unused) if pretrained else model_class(config)
        drop_unused(model, family)
        tokenizer = None
        if family.text is not None:
            # of a hub's name, not the cache's folder: it need not hold the tokenizer's files yet
            known = Path(self.source).is_dir() or folder.is_relative_to(weights_folder())
            source = str(folder) if known else self.source
            tokenizer = transformers_tokenizer(self.name, source, config.text_config.vocab_size)
        return transformers_anatomy(self.name, model.float(), tokenizer, _preprocessor(folder))

    def _config(self, library: Any, folder: Path) -> Any:
        try:
            config = library.AutoConfig.from_pretrained(folder)
        except (ValueError, KeyError, OSError) as error:
            reason = str(error).strip().split("\n")[0][:160]
            raise PeftmarkError(f"{self.name}: transformers cannot read its config.json: {reason}") from error
        if config.model_type not in FAMILIES:
            raise PeftmarkError(
                f"{self.name} is a model of type {config.model_type!r}; peftmark knows {', '.join(FAMILIES)}"
            )
        return config

    def _loaded(self, model_class: Any, config: Any, unused: tuple[str, ...]) -> nn.Module:
        file = self.weights_file()
        try:
            model, found = model_class.from_pretrained(
                None,
                config=config,
                state_dict=load_state_dict(file),
                output_loading_info=True,
                dtype=torch.float32,
            )
        except RuntimeError as error:
            raise PeftmarkError(f"{file} does not fit the architecture of {self.name}") from error
        # what a checkpoint for pretraining holds beside the towers (heads, codebooks) is no mistake
        towers = tuple(f"{name}." for name, _ in model.named_children())
        unexpected = [
            name
            for name in sorted(found["unexpected_keys"])
            if name.startswith(towers) and not name.endswith(NOT_WEIGHTS)
        ]
        missing = [name for name in sorted(found["missing_keys"]) if not name.startswith(unused)]
        check_keys(file, missing, unexpected)
        return model


def drop_unused(model: nn.Module, family: Family) -> None:
    """Take the parts out that have no share in features; some models are built without one or another."""
    for path in family.unused:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, None)


def transformers_anatomy(name: str, model: Any, tokenizer: Tokenizer | None, preprocessor: dict[str, Any]) -> Anatomy:
    """The anatomy of a `CLIPModel`, `SiglipModel`, `AlignModel`, `FlavaModel` or `ViTModel`.

    Args:
        tokenizer: None where there is no text tower.
        preprocessor: of the images: ``image_mean``, ``image_std``, ``crop_size``, as far as a file says them.
    """
    family = FAMILIES[model.config.model_type]
    tower, log = model.get_submodule(family.image), list[Insertion]()
    size = tower.config.image_size
    # a convolutional tower takes images of any size: the one that the weights were trained on
    crop = preprocessor.get("crop_size") or preprocessor.get("size")
    if family.vision is AlignVision and isinstance(crop, dict):
        size = crop.get("height", size)
    anatomy = family.vision(
        name=name,
        model=tower,
        root=model,
        # ALIGN's hidden_dim is the size of its pooling window; what it pools is in the shared space already
        feature_dim=model.config.projection_dim if family.vision is AlignVision else tower.config.hidden_size,
        input=Pixels(
            (size, size),
            tuple(preprocessor.get("image_mean", family.mean)),
            tuple(preprocessor.get("image_std", family.std)),
        ),
        log=log,
        library_prefix=family.library_prefix,
    )
    if isinstance(anatomy, TransformersAnatomy):
        side = size // tower.config.patch_size
        anatomy.grid = (side, side)
        anatomy.adopt_projection()
        anatomy.add_parts()
    if family.text is not None and tokenizer is not None:
        anatomy.text = _text(family.text, model, anatomy, tokenizer)
    return anatomy


def _text(kind: type[TransformersText], model: Any, anatomy: Anatomy, tokenizer: Tokenizer) -> TextTower:
    tower, log = model.text_model, anatomy.log
    blocks: tuple[Block, ...] = ()
    if issubclass(kind, ClipText):
        blocks = tuple(clip_block(layer, log) for layer in tower.encoder.layers)
    elif kind is BertText:
        blocks = tuple(flava_block(layer, log) for layer in tower.encoder.layer)
    return kind(
        root=model,
        image=anatomy.model,
        width=tower.config.hidden_size,
        embed_dim=getattr(model.config, "projection_dim", tower.config.hidden_size),
        context_length=tower.config.max_position_embeddings,
        log=log,
        tokenizer=tokenizer,
        token_blocks=blocks,
    )


def _preprocessor(folder: Path) -> dict[str, Any]:
    """What a preprocessor_config.json says of the normalisation and size of images; nothing where there is none."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return {}
    settings = json.loads(file.read_text())
    names = ("crop_size", "size", *(("image_mean", "image_std") if settings.get("do_normalize", True) else ()))
    return {name: settings[name] for name in names if settings.get(name)}


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise PeftmarkError("backbones of hf/ need transformers: pip install 'peftmark[transformers]'") from error


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Its progress bar and load report say what `check_keys` says in one line."""
    settings = library.utils.logging
    level, bars = settings.get_verbosity(), settings.is_progress_bar_enabled()
    settings.set_verbosity_error()
    settings.disable_progress_bar()
    torch_log = logging.getLogger("torch.utils._pytree")
    torch_level = torch_log.level
    torch_log.setLevel(logging.ERROR)  # it imports torchao, of which torch deprecates how it registers an enumeration
    try:
        yield
    finally:
        torch_log.setLevel(torch_level)
        settings.set_verbosity(level)
        if bars:
            settings.enable_progress_bar()
