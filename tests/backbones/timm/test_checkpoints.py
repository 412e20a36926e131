"""Checkpoints for timm models: each kind of file gives the function that was trained, or one clear line."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import open_clip.factory
import pytest
import timm
import torch
from numpy_vit import forward
from published import DEPTH, GRID, HEADS, PATCH, WIDTH, draw_state, google_arrays, save_dinov2, save_mae, save_moco_v3
from safetensors.torch import save_file
from torch import Tensor, nn

import peftmark
from peftmark.backbones import Anatomy, find_backbone, full_name
from peftmark.errors import PeftmarkError

SIZE = {"img_size": PATCH * GRID, "patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
OF_ITS_WIDTH = {"img_size": PATCH * GRID, "patch_size": PATCH, "depth": DEPTH}
VIT = "timm/vit_base_patch16_224.orig_in21k"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
create_model = timm.create_model


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """timm's architectures under their own names, tags and configurations, with fewer and narrower blocks."""

    def create(name: str, **given: Any) -> nn.Module:
        if not name.startswith("vit_"):
            return create_model(name, **given)
        return create_model(name, **{**(OF_ITS_WIDTH if name.startswith("vit_small_patch16") else SIZE), **given})

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setenv("PEFTMARK_WEIGHTS", str(tmp_path / "weights"))


def state_of(architecture: str, **given: Any) -> dict[str, Tensor]:
    return draw_state(timm.create_model(architecture, num_classes=0, **given))


def build(name: str, file: Path) -> Anatomy:
    return find_backbone(f"{name}@{file}").build(pretrained=True)


def refusal(name: str, file: Path) -> str:
    with pytest.raises(PeftmarkError) as error:
        build(name, file)
    assert "\n" not in str(error.value)
    return str(error.value)


def assert_holds(anatomy: Anatomy, state: dict[str, Tensor]) -> None:
    loaded = anatomy.model.state_dict()
    assert set(loaded) == set(state)
    for name, value in state.items():
        torch.testing.assert_close(loaded[name], value, rtol=0, atol=0, msg=name)


def save_arrays(file: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(file, **arrays)
    return file


# -- Google's .npz ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "prefix"), [(1, ""), (2, ""), (2, "opt/target/")])
def test_npz_computes_what_numpy_does(depth: int, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZE, "depth", depth)
    arrays = google_arrays(depth=depth)
    file = save_arrays(tmp_path / "ViT-B_16.npz", {f"{prefix}{name}": value for name, value in arrays.items()})
    model: Any = build(VIT, file).model.eval()
    image = np.random.default_rng(1).standard_normal((PATCH * GRID, PATCH * GRID, 3)).astype(np.float32)
    with torch.no_grad():
        tokens = model.forward_features(torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()
    expected = forward(arrays, image, depth)
    assert expected.std() > 0.1
    np.testing.assert_allclose(tokens, expected, rtol=0, atol=1e-4)


def test_npz_agrees_with_timm_s_own_loader(tmp_path: Path) -> None:
    file = save_arrays(tmp_path / "ViT-B_16.npz", google_arrays())
    model: Any = timm.create_model("vit_base_patch16_224", num_classes=0)
    model.load_pretrained(str(file))
    assert_holds(build(VIT, file), model.state_dict())


def test_npz_brings_its_number_of_heads(tmp_path: Path) -> None:
    file = save_arrays(tmp_path / "ViT.npz", google_arrays(heads=6))
    assert [block.attention.num_heads for block in build(VIT, file).blocks] == [6] * DEPTH


def test_npz_in_the_weights_folder_is_found_and_hashed(tmp_path: Path) -> None:
    file = tmp_path / "weights" / f"{VIT}.npz"
    file.parent.mkdir(parents=True)
    save_arrays(file, google_arrays())
    backbone = find_backbone(VIT)
    assert backbone.weights_file() == file
    assert backbone.weights_id(pretrained=True) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert_holds(backbone.build(pretrained=True), build(VIT, file).model.state_dict())


def test_npz_that_does_not_fit(tmp_path: Path) -> None:
    arrays = google_arrays()
    file = tmp_path / "ViT.npz"

    def said(**changed: Any) -> str:
        kept = {name: value for name, value in {**arrays, **changed}.items() if value is not None}
        return refusal(VIT, save_arrays(file, kept))

    deeper = google_arrays(depth=DEPTH + 1)
    assert f"12 unexpected (e.g. blocks.{DEPTH}.norm1.weight)" in said(**deeper)
    last = f"Transformer/encoderblock_{DEPTH - 1}"
    assert f"1 missing (e.g. blocks.{DEPTH - 1}.norm2.bias)" in said(**{f"{last}/LayerNorm_2/bias": None})
    one = said(**{f"{last}/MultiHeadDotProductAttention_1/key/bias": None})
    assert "1 missing (e.g. blocks.1.attn.qkv.bias), 2 unexpected" in one
    assert "1 unexpected (e.g. Transformer/extra/scale)" in said(**{"Transformer/extra/scale": arrays["cls"]})
    assert "1 of another shape (e.g. norm.bias: (3,) in the file, (24,) in the model)" in said(
        **{"Transformer/encoder_norm/bias": np.zeros(3, np.float32)}
    )
    assert "has no embedding/kernel" in refusal(VIT, save_arrays(file, {"a": arrays["cls"]}))
    wrong = save_arrays(file, google_arrays(patch=4, grid=8))
    assert "its patches have 4 pixels a side, those of vit_base_patch16_224 8" in refusal(VIT, wrong)
    pickled = save_arrays(file, {"a": np.array([{}], dtype=object)})
    assert "cannot be read as weights" in refusal(VIT, pickled)
    file.write_bytes(file.read_bytes()[:100])
    assert "cannot be read as weights" in refusal(VIT, file)
    assert "timm cannot make 'resnet18' with {'num_heads': 3}" in refusal("resnet18", save_arrays(file, arrays))


# -- position embeddings of another size -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["npz", "safetensors", "mae", "moco", "dinov2"])
def test_positions_are_resampled(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ramp over a grid of 8 stays one over a grid of 4, whichever the file; the class token's does not move."""
    grid = 2 * GRID
    ramp = torch.linspace(0, 1, grid)[None, :, None, None].expand(1, grid, grid, WIDTH).flatten(1, 2)
    positions = torch.cat((torch.full((1, 1, WIDTH), 7.0), ramp), dim=1)
    file = tmp_path / ("w.npz" if kind == "npz" else "w.safetensors" if kind == "safetensors" else "w.pth")
    name = "vit_small_patch14_dinov2" if kind == "dinov2" else VIT
    state = {**state_of(name.removeprefix("timm/"), img_size=PATCH * grid), "pos_embed": positions.contiguous()}
    if kind == "npz":
        save_arrays(file, {**google_arrays(), "Transformer/posembed_input/pos_embedding": positions.numpy()})
    elif kind == "safetensors":
        save_file(state, file)
    else:
        {"mae": lambda s, f: save_mae(s, f, False), "moco": save_moco_v3, "dinov2": save_dinov2}[kind](state, file)
    resampled = build(name, file).model.state_dict()["pos_embed"]
    assert resampled.shape == (1, 1 + GRID * GRID, WIDTH)
    assert torch.equal(resampled[0, 0], positions[0, 0])
    rows = resampled[0, 1:].reshape(GRID, GRID, WIDTH)
    torch.testing.assert_close(rows, rows[:, :1, :1].expand(-1, GRID, WIDTH))
    expected = torch.linspace(0, 1, grid).reshape(GRID, 2).mean(1)
    torch.testing.assert_close(rows[:, 0, 0], expected, rtol=0, atol=0.03)  # bicubic, less exact at the edges


def test_positions_of_no_square_grid(tmp_path: Path) -> None:
    state = {**state_of("vit_base_patch16_224"), "pos_embed": torch.zeros(1, 1 + 15, WIDTH)}
    save_file(state, tmp_path / "w.safetensors")
    assert "does not fit the architecture" in refusal(VIT, tmp_path / "w.safetensors")


# -- MAE, MoCo-v3, DINOv2, OpenAI's CLIP -----------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", [False, True])
def test_mae(decoder: bool, tmp_path: Path) -> None:
    state = state_of("vit_base_patch16_224")
    save_mae(state, tmp_path / "mae.pth", decoder)
    anatomy = build("timm/vit_base_patch16_224.mae", tmp_path / "mae.pth")
    assert_holds(anatomy, state)
    assert (anatomy.pixels.mean, anatomy.pixels.std) == IMAGENET
    if decoder:  # the file says what it is, where the name does not
        assert (build(VIT, tmp_path / "mae.pth").pixels.mean, build(VIT, tmp_path / "mae.pth").pixels.std) == IMAGENET


def test_moco_v3(tmp_path: Path) -> None:
    """ViT-S has twelve heads there, six in timm: the shapes are the same and the function is not."""
    state = state_of("vit_small_patch16_224")
    file = tmp_path / "vit-s-300ep.pth.tar"
    save_moco_v3(state, file)
    anatomy = build("timm/vit_small_patch16_224", file)
    assert_holds(anatomy, state)
    assert (anatomy.pixels.mean, anatomy.pixels.std) == IMAGENET
    assert [block.attention.num_heads for block in anatomy.blocks] == [12] * DEPTH
    assert find_backbone("vit_small_patch16_224").build(pretrained=False).blocks[0].attention.num_heads == 6


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"])
def test_dinov2(name: str, tmp_path: Path) -> None:
    """With registers, positions are the patches' and the class token's, which timm adds to the token."""
    official = state_of(name)
    expected = dict(official)
    if "reg_token" in official:
        official["register_tokens"] = official.pop("reg_token")
        official["pos_embed"] = torch.cat((torch.full((1, 1, WIDTH), 0.5), official["pos_embed"]), dim=1)
        expected["cls_token"] = expected["cls_token"] + 0.5
    save_dinov2(official, tmp_path / "dinov2_vits14_pretrain.pth")
    anatomy = build(f"timm/{name}", tmp_path / "dinov2_vits14_pretrain.pth")
    assert_holds(anatomy, expected)
    assert (anatomy.pixels.mean, anatomy.pixels.std) == IMAGENET
    assert "does not fit the architecture" in refusal(VIT, tmp_path / "dinov2_vits14_pretrain.pth")


@pytest.fixture
def openai_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, nn.Module]:
    """A TorchScript archive of a small CLIP, and the model."""
    vision = {"image_size": PATCH * GRID, "layers": DEPTH, "width": WIDTH, "patch_size": PATCH, "head_width": 8}
    text = {"width": 64, "heads": 8, "layers": 1, "context_length": 77, "vocab_size": 49408}
    config = {"embed_dim": 16, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small", config)
    model = open_clip.create_model("small", pretrained=None)
    model.visual.load_state_dict(draw_state(model.visual))

    class Published(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = model.visual
            for name, value in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
                self.register_buffer(name, torch.tensor(value))

        def forward(self, images: Tensor) -> Tensor:
            return self.visual(images)

    torch.jit.trace(Published(), torch.zeros(1, 3, 32, 32), check_trace=False).save(str(tmp_path / "ViT.pt"))
    return tmp_path / "ViT.pt", model


@pytest.mark.filterwarnings("ignore")
def test_openai_s_image_tower(openai_archive: tuple[Path, nn.Module]) -> None:
    file, clip = openai_archive
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    timm_tower: Any = build("vit_base_patch16_clip_quickgelu_224.openai", file).model.eval()
    with torch.no_grad():
        features = timm_tower(images) @ clip.visual.proj
        torch.testing.assert_close(features, clip.visual(images), rtol=1e-4, atol=1e-5)
    said = refusal("vit_base_patch16_clip_224.openai", file)
    assert "was trained with QuickGELU, which vit_base_patch16_clip_224 does not compute" in said
    assert said.endswith(f": use timm/vit_base_patch16_clip_quickgelu_224@{file}")


# -- timm's own format, and nothing in part --------------------------------------------------------------------------


def test_a_file_is_loaded_whole_or_not_at_all(tmp_path: Path) -> None:
    """timm itself loads without a classifier what there is, and says nothing of the rest."""
    state = state_of("vit_base_patch16_224")
    file = tmp_path / "w.safetensors"
    save_file({**state, "head.weight": torch.zeros(5, WIDTH), "head.bias": torch.zeros(5)}, file)
    assert_holds(build(VIT, file), state)
    fewer = {name: value for name, value in state.items() if not name.startswith("blocks.1.")}
    save_file(fewer, file)
    assert "12 missing (e.g. blocks.1.norm1.weight)" in refusal(VIT, file)
    save_file({**fewer, "fc_norm.weight": torch.zeros(3)}, file)
    assert "12 missing (e.g. blocks.1.norm1.weight), 1 unexpected (e.g. fc_norm.weight)" in refusal(VIT, file)


@pytest.mark.parametrize("architecture", ["resnet10t", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_other_families(architecture: str, tmp_path: Path) -> None:
    """Each has its classifier under another name; its file is used whole."""
    torch.manual_seed(3)
    whole = timm.create_model(architecture, num_classes=7).state_dict()
    torch.save(whole, tmp_path / "w.pth")
    loaded = build(architecture, tmp_path / "w.pth").model.state_dict()
    assert len(whole) - len(loaded) == 2
    assert all(torch.equal(value, whole[name]) for name, value in loaded.items())


def test_an_average_over_steps_goes_first(tmp_path: Path) -> None:
    state = state_of("vit_base_patch16_224")
    other = {name: -value for name, value in state.items()}
    torch.save(
        {"state_dict": other, "state_dict_ema": {f"module.{n}": v for n, v in state.items()}}, tmp_path / "w.pth"
    )
    assert_holds(build(VIT, tmp_path / "w.pth"), state)


def test_both_in21k_tags_are_known() -> None:
    names = ("vit_base_patch16_224.orig_in21k", "vit_base_patch16_224.augreg_in21k")
    for name in names:
        assert find_backbone(name).build(pretrained=False).pixels.mean == (0.5, 0.5, 0.5)
        with pytest.raises(PeftmarkError, match=rf"timm/{name}\.safetensors"):
            find_backbone(name).weights_file()


def test_the_documented_names_exist() -> None:
    """Each ``--backbone`` of backbones/README.md, with its tag."""
    page = Path(peftmark.__file__).parent / "backbones" / "README.md"
    if not page.is_file():
        pytest.skip("documents are not in the wheel")
    cells = [row.split("|")[3] for row in page.read_text().splitlines() if row.startswith("| ")]
    names = [name.partition("@")[0] for cell in cells for name in re.findall(r"`([^`]+)`", cell) if name[0] != "-"]
    assert len(names) > 12
    for name in names:
        family, _, rest = full_name(name).partition("/")
        if family == "timm":
            config = timm.get_pretrained_cfg(rest)
            assert config is not None, name
            assert config.tag == (rest.partition(".")[2] or config.tag), name
