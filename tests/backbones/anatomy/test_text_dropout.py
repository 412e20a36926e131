"""Texts have dropout masks of their own: they are packed only where no dropout is active."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peftmark.adapting import adapt
from peftmark.backbones import Anatomy, Insert, PackedTexts, TextTower, find_backbone
from peftmark.methods import OpenVocabularyClassifier
from peftmark.methods.parts.context_prompt import ContextPrompt
from peftmark.methods.parts.low_rank import LowRank

NAMES = ("red apple", "grinning face", "dog")


class Around(Insert):
    """A dropout in a block's stream."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(p)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x)


def built() -> Anatomy:
    torch.manual_seed(0)
    return find_backbone("embedded/clip").build(pretrained=False)


@pytest.fixture
def packed_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each pass through attention took packed."""
    seen: list[int] = []
    attend = PackedTexts.attend

    def counted(self: PackedTexts, *arguments: Tensor | int) -> Tensor:
        seen.append(len(self.ids))
        return attend(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(PackedTexts, "attend", counted)
    return seen


def correlations(features: list[Tensor]) -> Tensor:
    """Features (C, E) under different masks -> correlations (C, C) of their noise."""
    noise = torch.stack(features)
    noise = (noise - noise.mean(0)).transpose(0, 1).flatten(1)
    return torch.corrcoef(noise)


def clip_lora(**config: float) -> OpenVocabularyClassifier:
    torch.manual_seed(1)
    model = adapt(built(), "clip_lora", class_names=NAMES, templates=["a photo of a {}."], **config)
    assert isinstance(model, OpenVocabularyClassifier)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model.train()


def drop_in_context(text: TextTower) -> ContextPrompt:
    """A learned context over a tower that a low-rank update with dropout changes."""
    prompt = ContextPrompt(text, 4)
    prompt.set_class_names(text, NAMES)
    for block in text.blocks:
        delta = LowRank(128, 128, 2, 1.0, 0.25)
        nn.init.normal_(delta.up, std=0.1)
        block.projections["v"].add_delta(delta)
    return prompt


@pytest.mark.parametrize("source", ["templates", "context"])
def test_noise_of_two_classes_is_independent(source: str) -> None:
    if source == "templates":
        encode = clip_lora().class_features
    else:
        text = built().text_tower()
        prompt = drop_in_context(text)
        text.root.train()

        def encode() -> Tensor:
            return F.normalize(text.encode(*prompt()), dim=-1)

    torch.manual_seed(2)
    with torch.no_grad():
        found = correlations([encode() for _ in range(200)])
    off_diagonal = found[~torch.eye(len(NAMES), dtype=torch.bool)]
    assert off_diagonal.abs().max() < 0.1


def test_texts_are_packed_unless_a_dropout_is_active(packed_passes: list[int]) -> None:
    model = clip_lora()
    model.class_features()
    assert not packed_passes
    model.eval().class_features()
    assert set(packed_passes) == {len(NAMES)}
    packed_passes.clear()
    clip_lora(dropout=0.0).class_features()
    assert set(packed_passes) == {len(NAMES)}


def test_a_dropout_of_the_image_tower_or_behind_the_features_unpacks_nothing() -> None:
    anatomy = built()
    text = anatomy.text_tower()
    anatomy.blocks[0].add_before(Around(0.5))
    text.add_after_image(Around(0.5))
    text.root.train()
    assert not text.dropping
    text.blocks[0].add_before(Around(0.0))
    assert not text.dropping
    text.blocks[0].add_before(Around(0.5))
    text.root.train()
    assert text.dropping
    text.root.eval()
    assert not text.dropping


@pytest.mark.parametrize("times", [(), (3,), (2, 3)])
@pytest.mark.parametrize("first", [0, 1], ids=["from the start token on", "nothing is shared"])
def test_taken_apart_texts_are_what_they_are_packed(times: tuple[int, ...], first: int) -> None:
    """With a dropout that drops next to nothing, also where every image has embeddings of its own."""
    text = built().text_tower()
    words = ["dog", "red hammer", "face of a dog", "dog of a dog of a dog"]
    ids = text.tokenize(words)[:, first:]
    packed = PackedTexts(ids, text.lengths(text.tokenize(words)) - first)
    assert (packed.shared == 0) == (first == 1)
    embedded = torch.randn(*times, len(packed.index), 128, generator=torch.Generator().manual_seed(0))
    text.blocks[0].add_before(Around(1e-12))
    found = []
    for training in (False, True):
        text.root.train(training)
        leaf = embedded.clone().requires_grad_(True)
        features = text.encode(leaf, packed)
        assert features.shape == (*times, 4, text.embed_dim)
        found.append((features, *torch.autograd.grad(features.pow(3).sum(), leaf)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
