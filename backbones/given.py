"""A model that the user built, as a backbone: of timm, open_clip or transformers."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from ..errors import PeftmarkError
from .anatomy.anatomy import Anatomy

if TYPE_CHECKING:
    from .tokenizers import Tokenizer

TIMM_DEFAULTS = {"input_size": (3, 224, 224), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""What timm takes for a model that says nothing of its input."""
OPENAI_DEFAULTS = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
OPENAI_VOCABULARY = 49408
"""Tokens of the tokenizer that comes with open_clip."""


def anatomy_of(model: nn.Module, tokenizer: Any = None) -> Anatomy:
    """The anatomy of a copy of a model: its own weights and settings, in float32, on the CPU, frozen.

    A timm model loses its classifier, transformers' models lose the parts that have no share in features of images and
    texts, as when they are built by name. The model itself stays as it is. Its library is known by its class, so that
    none is imported for it.

    Args:
        model: any timm model; open_clip's `CLIP`, `CustomTextCLIP` or `CoCa`; transformers' `CLIPModel`,
            `SiglipModel`, `AlignModel`, `FlavaModel` or `ViTModel`, or its `ViTForImageClassification`.
        tokenizer: of the text tower: one of open_clip or transformers, or what maps texts and a context length to ids.
            Without it, an open_clip model with OpenAI's vocabulary has open_clip's own, one of transformers the one of
            the folder or name that it was loaded from; others have none, which is said where it is needed.

    Raises:
        PeftmarkError: on another model.

    >>> import timm
    >>> model = timm.create_model("vit_tiny_patch16_224", num_classes=1000)
    >>> anatomy = anatomy_of(model)
    >>> anatomy.feature_dim, len(anatomy.blocks), anatomy.model is model
    (192, 12, False)
    """
    make = {"timm": _timm, "open_clip": _open_clip, "transformers": _transformers}.get(_library(model))
    if make is None:
        raise PeftmarkError(
            f"a {type(model).__name__} is no model of timm, open_clip or transformers: give one of these, a backbone's "
            f"name, or an Anatomy of it"
        )
    return make(model, tokenizer)


def _library(model: nn.Module) -> str:
    """The package of the model's class, or, of a user's own class, of the one that it is derived from."""
    packages = (kind.__module__.partition(".")[0] for kind in type(model).__mro__)
    return next((package for package in packages if package in ("timm", "open_clip", "transformers", "torch")), "")


def _copy(model: nn.Module) -> Any:
    """In float32 and, but for a model without values, on the CPU, where inserts are made."""
    copied = copy.deepcopy(model).float()
    return copied if any(p.is_meta for p in copied.parameters()) else copied.cpu()


def _timm(model: nn.Module, tokenizer: Any) -> Anatomy:
    from .timm.builder import timm_anatomy

    kind = type(model).__name__
    if tokenizer is not None:
        raise PeftmarkError(f"tokenizer= is for models with a text tower; a {kind} of timm has none")
    if not callable(getattr(model, "forward_head", None)):  # timm's models have no base class in common
        raise PeftmarkError(f"a {kind} is a part of a timm model: give the model, as timm.create_model makes it")
    copied = _copy(model)
    copied.reset_classifier(0)
    return timm_anatomy(kind, copied, {**TIMM_DEFAULTS, **(getattr(copied, "pretrained_cfg", None) or {})})


def _open_clip(model: nn.Module, tokenizer: Any) -> Anatomy:
    from open_clip import CLIP, CoCa, CustomTextCLIP
    from open_clip.model import get_model_preprocess_cfg, set_model_preprocess_cfg

    from .open_clip.builder import clip_anatomy

    kind = type(model).__name__
    if not isinstance(model, CLIP | CustomTextCLIP | CoCa):
        raise PeftmarkError(f"a {kind} is a part of an open_clip model: give the model, image and text tower together")
    copied = _copy(model)
    set_model_preprocess_cfg(copied, {**OPENAI_DEFAULTS, **get_model_preprocess_cfg(copied)})
    text = copied if isinstance(copied, CLIP) else copied.text
    embed_dim = _clip_width(copied) if isinstance(copied, CLIP) else text.output_dim
    if tokenizer is None and getattr(text, "vocab_size", None) == OPENAI_VOCABULARY:
        from open_clip.tokenizer import SimpleTokenizer

        tokenizer = SimpleTokenizer()
    return clip_anatomy(kind, copied, embed_dim, _tokenizer(kind, tokenizer, "open_clip.get_tokenizer(NAME)"))


def _clip_width(model: Any) -> int:
    """E, of the space that a `CLIP` of open_clip has images and texts in."""
    projection = model.text_projection
    if projection is None:
        return cast(int, model.token_embedding.embedding_dim)
    return cast(int, projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1])


def _transformers(model: nn.Module, tokenizer: Any) -> Anatomy:
    from .tokenizers import transformers_tokenizer
    from .transformers.builder import FAMILIES, drop_unused, transformers_anatomy

    kind, settings = type(model).__name__, cast(Any, model).config
    model = getattr(model, "base_model", model)  # of one with a classifier, what this reads
    family = FAMILIES.get(settings.model_type)
    if family is None or family.model not in (each.__name__ for each in type(model).__mro__):
        known = ", ".join(family.model for family in FAMILIES.values())
        raise PeftmarkError(f"a {kind} of transformers is not known here: give a {known}")
    copied = _copy(model)
    drop_unused(copied, family)
    if family.text is None:
        if tokenizer is not None:
            raise PeftmarkError(f"tokenizer= is for models with a text tower; a {kind} of transformers has none")
        made = None
    elif tokenizer is None and settings.name_or_path:
        made = transformers_tokenizer(kind, settings.name_or_path, settings.text_config.vocab_size)
    else:
        made = _tokenizer(kind, tokenizer, "transformers.AutoTokenizer.from_pretrained(NAME)")
    return transformers_anatomy(kind, copied, made, {})


def _tokenizer(kind: str, tokenizer: Any, example: str) -> Tokenizer:
    """What a user gave; where that is nothing, what says so when it is first needed."""
    from .tokenizers import LazyTokenizer, prepared_tokenizer

    if tokenizer is not None:
        return prepared_tokenizer(tokenizer)

    def make() -> Tokenizer:
        raise PeftmarkError(f"the tokenizer of this {kind} is not known: give tokenizer=, e.g. {example}")

    return LazyTokenizer(make)
