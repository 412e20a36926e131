"""Texts that are packed have the features that they have one by one."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from peftmark.backbones import Anatomy, Insert, PackedTexts, find_backbone
from peftmark.backbones.anatomy import packed_texts
from peftmark.methods.parts.low_rank import LowRank


class Update(Insert):
    """Adds a low-rank map of the stream to it."""

    def __init__(self, delta: LowRank) -> None:
        super().__init__()
        self.delta = delta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x @ self.delta.down.T @ self.delta.up.T


WORDS = ("red", "sailboat", "grinning", "face", "of", "a", "dog", "hammer")


@lru_cache(maxsize=1)
def anatomy() -> Anatomy:
    torch.manual_seed(0)
    built = find_backbone("embedded/clip").build(pretrained=False)
    built.root.eval()
    return built


def encoded(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, PackedTexts]:
    """Features one by one and packed, and the rows."""
    text = anatomy().text_tower()
    packed = text.pack(ids)
    assert packed is not None
    with torch.no_grad():
        alone = torch.cat([text.encode(text.embed(row[None]), row[None]) for row in ids])
        return alone, text.encode(packed.take(text.embed(ids)), packed), packed


texts = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=0, max_size=6).map(" ".join), min_size=1, max_size=9, unique=True
)


@settings(max_examples=40, deadline=None)
@given(texts=texts, opening=st.sampled_from(["", "a picture of a ", "a "]), row=st.sampled_from([1, 20, 40, 512]))
def test_features_are_the_same(texts: list[str], opening: str, row: int) -> None:
    """Also where nothing is shared, all is, one text is the beginning of another, and rows are short."""
    ids = anatomy().text_tower().tokenize([opening + text for text in texts])
    before, packed_texts.ROW = packed_texts.ROW, row
    try:
        alone, together, packed = encoded(ids)
    finally:
        packed_texts.ROW = before
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert len(packed.ends) == len(texts)


def test_what_is_shared_is_there_once() -> None:
    text = anatomy().text_tower()
    ids = text.tokenize(["a picture of a dog", "a picture of a red hammer", "a picture of a sailboat"])
    _, _, packed = encoded(ids)
    lengths = text.lengths(ids)
    assert packed.shared == int(text.lengths(text.tokenize(["a picture of a"]))[0]) - 1
    assert packed.rows == 1
    by_size = sorted(lengths.tolist(), reverse=True)
    assert packed.positions[: packed.shared].tolist() == list(range(packed.shared))
    assert packed.positions[packed.shared :].tolist() == [p for size in by_size for p in range(packed.shared, size)]


def test_nothing_need_be_shared() -> None:
    """A tower may have no start token, so that texts differ from the first on."""
    text = anatomy().text_tower()
    ids = text.tokenize(["dog", "red hammer", "face of a dog"])[:, 1:]
    packed = PackedTexts(ids, text.lengths(text.tokenize(["dog", "red hammer", "face of a dog"])) - 1)
    assert packed.shared == 0
    with torch.no_grad():
        alone = torch.cat([text.encode(text.embed(row[None]), row[None]) for row in ids])
        together = text.encode(packed.take(text.embed(ids)), packed)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_rows_are_filled_equally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_texts, "ROW", 50)
    ids = anatomy().text_tower().tokenize([f"{first} {second}" for first in WORDS for second in WORDS])
    _, _, packed = encoded(ids)
    needed = int((anatomy().text_tower().lengths(ids) - packed.shared).sum())
    held = len(packed.index) - packed.shared
    assert packed.rows == -(-needed // 50)
    assert held < 1.05 * needed


@pytest.mark.parametrize("last", [False, True], ids=["a middle block", "the last block"])
@pytest.mark.parametrize("place", ["q", "v", "mlp", "block"])
def test_gradients_and_changes_inside_the_tower_are_the_same(last: bool, place: str) -> None:
    """With a low-rank update, whose input is every token, and by way of the embeddings.

    Of the last block only the texts' ends are computed, unless something is inserted in its stream.
    """
    torch.manual_seed(0)
    built = find_backbone("embedded/clip").build(pretrained=False)
    text = built.text_tower()
    delta = LowRank(128, 128, 4, 1.0, 0.0)
    torch.nn.init.normal_(delta.up, std=0.1)
    block = text.blocks[-1 if last else 1]
    if place == "mlp":
        block.branches[1].add_parallel(Update(delta))
    elif place == "block":
        block.add_before(Update(delta))
    else:
        block.projections[place].add_delta(delta)
    ids = text.trim(text.tokenize(["a dog", "a red hammer", "a face of a dog"]))
    found = []
    for packed in (None, text.pack(ids)):
        embedded = text.embed(ids).detach().requires_grad_(True)
        features = text.encode(embedded, ids) if packed is None else text.encode(packed.take(embedded), packed)
        loss = F.normalize(features, dim=-1).pow(3).sum()
        found.append(torch.autograd.grad(loss, [embedded, delta.up, delta.down]))
    torch.testing.assert_close(found[0][1:], found[1][1:], rtol=1e-4, atol=1e-6)
    # of what is shared, one text's embedding stands for all
    torch.testing.assert_close(found[0][0][:, :2].sum(0), found[1][0][:, :2].sum(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[0][0][:, 2:], found[1][0][:, 2:], rtol=1e-4, atol=1e-6)


def test_rows_for_every_image_are_encoded_at_once() -> None:
    text = anatomy().text_tower()
    ids = text.tokenize(["a dog", "a red hammer"])
    packed = text.pack(ids)
    assert packed is not None
    noise = torch.randn(3, *packed.index.shape, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = text.encode(noise, packed)
        alone = torch.stack([text.encode(one, packed) for one in noise])
    assert together.shape == (3, 2, 128)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
