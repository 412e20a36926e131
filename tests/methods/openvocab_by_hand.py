"""CLIP's towers with prompts in plain tensor operations, for tests that recompute what a method makes of them."""

from __future__ import annotations

from typing import Any

import torch
from invariants import CLASS_NAMES, Case
from torch import Tensor
from torch.nn import functional as F

from peftmark.adapting import adapt
from peftmark.methods import AdaptedModel, Context

CASE = Case("coop", "openvocab")
TEMPLATES = ("a picture of a {}.", "{} in a field.")
START, SCALE = 1, 1 / 0.07
DEEP = ("ivlp", "maple", "promptsrc")


def moved(method: str, class_names: tuple[str, ...] = CLASS_NAMES, **config: object) -> AdaptedModel:
    """On random weights, everything trainable far from where it starts."""
    torch.manual_seed(3)
    model = adapt(CASE.anatomy(), method, class_names=class_names, templates=TEMPLATES, **config)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def context(epochs: int = 1, steps: int = 1) -> Context:
    return Context(epochs, steps, CLASS_NAMES, TEMPLATES)


def image_features(bare: Any, images: Tensor) -> Tensor:
    return F.normalize(bare.projected(images), dim=-1)


def text_features(bare: Any, embedded: Tensor, texts: list[str], deep: tuple[Tensor, ...] = ()) -> Tensor:
    """Embeddings (C, L, width) through the bare tower, block by block; `deep` replaces the tokens behind the start."""
    clip, ids = bare.root, bare.text.tokenize(texts)[:, : embedded.shape[1]]
    length = embedded.shape[1]
    x = embedded + clip.positional_embedding[:length]
    for index, block in enumerate(clip.transformer.resblocks):
        if 0 < index <= len(deep):
            x = x.clone()
            x[:, START : START + len(deep[index - 1])] = deep[index - 1]
        x = block(x, attn_mask=clip.attn_mask[:length, :length])
    x = clip.ln_final(x)[torch.arange(len(ids)), ids.argmax(dim=1)]
    return F.normalize(x @ clip.text_projection, dim=-1)


def written(bare: Any, templates: tuple[str, ...] = TEMPLATES, each: bool = True) -> Tensor:
    """The teacher: class features by templates."""
    features = []
    for template in templates:
        ids = bare.text.tokenize([template.format(name) for name in CLASS_NAMES])
        encoded = bare.root.encode_text(ids)
        features.append(encoded / encoded.norm(dim=-1, keepdim=True) if each else encoded)
    mean = sum(features) / len(features)
    return mean / mean.norm(dim=-1, keepdim=True)


def with_context(bare: Any, tokens: Tensor, words: str = "") -> tuple[Tensor, list[str]]:
    """[start | tokens | rest of words, class name . end], and the texts that these stand for."""
    texts = [f"{words or ' '.join(['x'] * len(tokens))} {name}." for name in CLASS_NAMES]
    embedded = bare.text.embed(bare.text.tokenize(texts)).detach().clone()
    embedded[:, START : START + len(tokens)] = tokens
    return embedded, texts


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def image_tower(bare: Any, images: Tensor, first: Tensor, deep: tuple[Tensor, ...]) -> Tensor:
    """Normalised features by hand: `first` behind the tokens before ln_pre, `deep` in their place block by block."""
    tower, n = bare.model, len(first)
    x = tower.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat((tower.class_embedding.expand(len(x), 1, -1), x), dim=1) + tower.positional_embedding
    x = tower.ln_pre(torch.cat((x, first.expand(len(x), -1, -1)), dim=1))
    for index, block in enumerate(tower.transformer.resblocks):
        if 0 < index <= len(deep):
            x = torch.cat((x[:, :-n], deep[index - 1].expand(len(x), -1, -1)), dim=1)
        x = block(x)
    return F.normalize(tower.ln_post(x[:, 0]) @ tower.proj, dim=-1)
