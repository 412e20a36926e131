"""Text towers of every library: the library's own numbers, and prompts that are what they stand for."""

from __future__ import annotations

import copy
import socket
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor
from vision_language import add_architectures, save_transformers

from peftmark.adapting import adapt
from peftmark.backbones import Anatomy, find_backbone
from peftmark.errors import PeftmarkError, Unsupported
from peftmark.methods import AdaptedModel

NAMES = ("red apple", "grinning face", "sailboat", "dog", "hammer")
TOWERS = (
    "embedded/clip",
    "open_clip/small-CLIP",
    "open_clip/small-RN",
    "open_clip/small-custom",
    "open_clip/small-SigLIP",
    "open_clip/small-CLIPA",
    "hf/clip",
    "hf/siglip",
    "hf/flava",
    "hf/align",
)
SEES_PADDING = ("open_clip/small-SigLIP", "open_clip/small-CLIPA", "hf/siglip")


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Anatomy]:
    """Always the same random backbone, in evaluation mode."""
    add_architectures(monkeypatch, tmp_path)

    def make(name: str) -> Anatomy:
        torch.manual_seed(0)
        pretrained = name.startswith("hf/")
        if pretrained:
            save_transformers(name.removeprefix("hf/"), tmp_path / name)
            name = f"hf/{tmp_path / name}"
        anatomy = find_backbone(name).build(pretrained)
        anatomy.root.eval()
        return anatomy

    return make


def images_for(anatomy: Anatomy, n: int = 3) -> Tensor:
    return torch.randn(n, 3, *anatomy.image_size, generator=torch.Generator().manual_seed(1))


def logits(model: AdaptedModel) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(images_for(model.anatomy))


@pytest.mark.parametrize("words", ["a photo of a", "a drawing"])
@pytest.mark.parametrize("tower", TOWERS)
def test_words_of_a_template_give_its_zero_shot_logits(tower: str, words: str, build: Callable[[str], Anatomy]) -> None:
    anatomy = build(tower)
    zero_shot = logits(adapt(copy.deepcopy(anatomy), "zero_shot", class_names=NAMES, templates=[words + " {}."]))
    learned = logits(adapt(anatomy, "coop", class_names=NAMES, init_words=words))
    torch.testing.assert_close(learned, zero_shot, rtol=1e-5, atol=1e-5)
    assert (zero_shot - zero_shot[:, :1]).abs().max() > 1e-3  # the names are told apart


@pytest.mark.parametrize("tower", TOWERS)
def test_where_words_stand(tower: str, build: Callable[[str], Anatomy]) -> None:
    text = build(tower).text_tower()
    empty, word, words = text.tokenize(["", "a", "a a a"])
    assert text.start == (0 if "iglip" in tower.lower() else 1)
    assert text.lengths(torch.stack([empty, word, words])).tolist() == [text.start + n for n in (1, 2, 4)]
    assert (words[text.start : text.start + 3] == word[text.start]).all()
    assert len(empty) == text.context_length
    full = text.tokenize(["a " * text.context_length])
    assert text.lengths(full).tolist() == [text.context_length]


@pytest.mark.parametrize("tower", TOWERS)
def test_trimming_changes_no_feature(tower: str, build: Callable[[str], Anatomy]) -> None:
    """And is not done where it would."""
    text = build(tower).text_tower()
    ids = text.tokenize(["a photo of a dog.", "dog"])
    trimmed = text.trim(ids)
    assert (trimmed.shape == ids.shape) == (tower in SEES_PADDING)
    longest = int(text.lengths(ids).max())
    with torch.no_grad():
        whole, short = (text.encode(text.embed(part), part) for part in (ids, trimmed))
        torch.testing.assert_close(short, whole, rtol=1e-5, atol=1e-5)
        cut = ids[:, :longest]
        assert torch.allclose(text.encode(text.embed(cut), cut), whole, atol=1e-4) != (tower in SEES_PADDING)


@pytest.mark.parametrize("tower", [tower for tower in TOWERS if tower.startswith("open_clip/")])
def test_open_clip_s_own_logits(tower: str, build: Callable[[str], Anatomy]) -> None:
    anatomy, templates = build(tower), ["a photo of a {}."]
    torch.manual_seed(0)
    reference = open_clip.create_model(tower.removeprefix("open_clip/"), pretrained=None).eval()
    ids = anatomy.text_tower().tokenize([templates[0].format(name) for name in NAMES])
    with torch.no_grad():
        expected = reference.get_logits(images_for(anatomy), ids)[0]
    model = adapt(anatomy, "zero_shot", class_names=NAMES, templates=templates)
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("method", ["vpt_deep", "lora", "convpass", "adaptformer"])
def test_a_convolutional_tower_has_a_text_side_only(method: str, build: Callable[[str], Anatomy]) -> None:
    """CLIP's ResNet and ALIGN's EfficientNet; `coop` works on both (above)."""
    for tower in ("open_clip/small-RN", "hf/align"):
        with pytest.raises(Unsupported, match="no transformer blocks"):
            adapt(build(tower), method, class_names=NAMES)


def test_blocks_of_text_towers(build: Callable[[str], Anatomy]) -> None:
    for tower in TOWERS:
        text = build(tower).text_tower()
        if tower == "hf/align":
            with pytest.raises(Unsupported, match="the text tower has no transformer blocks whose parts are known"):
                _ = text.blocks
        else:
            assert {block.width for block in text.blocks} == {text.width}


@pytest.mark.parametrize("tower", ["open_clip/small-SigLIP", "open_clip/small-CLIPA"])
def test_a_hub_s_tokenizer_is_not_asked_for_before_it_is_needed(
    tower: str, build: Callable[[str], Anatomy], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PEFTMARK_WEIGHTS", str(tmp_path / "nothing"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    opened = []
    monkeypatch.setattr(socket.socket, "connect", lambda *arguments: opened.append(arguments))
    anatomy = build(tower)
    adapt(copy.deepcopy(anatomy), "linear", num_classes=3)
    assert opened == []
    with pytest.raises(PeftmarkError) as error:
        adapt(anatomy, "zero_shot", class_names=NAMES).eval()(images_for(anatomy))
    folder = tmp_path / "nothing" / "tokenizers"
    assert str(folder) in str(error.value)
    assert "tokenizer.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_towers_of_unknown_parts_say_so(build: Callable[[str], Anatomy]) -> None:
    anatomy = build("open_clip/coca_ViT-B-32")
    with pytest.raises(Unsupported, match="has a TextTransformer in a CoCa, a text tower whose parts are not known"):
        adapt(anatomy, "zero_shot", class_names=NAMES)
    assert anatomy.pooled(images_for(anatomy, 1)).shape == (1, anatomy.feature_dim)
