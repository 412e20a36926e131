"""Checkpoints for open_clip models: each kind of file under open_clip's names, and never with the wrong activation."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import open_clip
import open_clip.factory
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from peftmark.adapting import adapt
from peftmark.backbones import find_backbone
from peftmark.errors import PeftmarkError

VIT = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16}
TEXT = {"width": 64, "heads": 8, "layers": 2, "context_length": 77, "vocab_size": 49408}
TAGS = open_clip.list_pretrained()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = {"embed_dim": 32, "vision_cfg": VIT, "text_cfg": TEXT}
    for name, more in (
        ("small", {}),
        ("small-quickgelu", {"quick_gelu": True}),
        ("small-custom", {"custom_text": True}),
    ):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, copy.deepcopy({**config, **more}))
    monkeypatch.setenv("PEFTMARK_WEIGHTS", str(tmp_path))


def is_quick(architecture: str) -> bool:
    return bool(open_clip.get_model_config(architecture).get("quick_gelu"))


@pytest.mark.parametrize(("architecture", "tag"), TAGS)
def test_a_tag_that_needs_quick_gelu_gets_it(
    architecture: str, tag: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every tag of open_clip, whether its weights are here or are to be fetched."""
    monkeypatch.setattr(open_clip, "download_pretrained", lambda config: str(tmp_path / "fetched"))
    backbone = find_backbone(f"open_clip/{architecture}.{tag}")
    needed = open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu", False)
    if not needed or is_quick(architecture):
        assert backbone.weights_file() == tmp_path / "fetched"
        return
    for _ in range(2):
        with pytest.raises(PeftmarkError) as error:
            backbone.weights_file()
        assert f"use open_clip/{architecture}-quickgelu.{tag}" in str(error.value)
        assert "\n" not in str(error.value)
        local = tmp_path / "open_clip" / f"{architecture}.{tag}.safetensors"  # a local file under that name neither
        local.parent.mkdir(exist_ok=True)
        local.touch()
    other = find_backbone(f"open_clip/{architecture}-quickgelu.{tag}")
    assert is_quick(other.architecture)
    assert other.weights_file() == tmp_path / "fetched"


def test_how_often_that_is() -> None:
    refused = [
        (architecture, tag)
        for architecture, tag in TAGS
        if open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu") and not is_quick(architecture)
    ]
    assert ("ViT-B-16", "openai") in refused
    assert len(refused) >= 27


def test_the_tags_that_are_offered_fit() -> None:
    with pytest.raises(PeftmarkError) as error:
        find_backbone("open_clip/ViT-B-32").weights_file()
    assert "openai" not in str(error.value)
    with pytest.raises(PeftmarkError, match=r"by a tag \(openai, "):
        find_backbone("open_clip/ViT-B-32-quickgelu").weights_file()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_openai_s_archive(tmp_path: Path) -> None:
    """TorchScript, half precision, three numbers beside the parameters."""
    torch.manual_seed(0)
    model = open_clip.create_model("small-quickgelu", pretrained=None)

    class Published(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, child in model.named_children():
                self.add_module(name, child)
            for name in ("positional_embedding", "text_projection", "logit_scale"):
                setattr(self, name, getattr(model, name))
            for name, value in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
                self.register_buffer(name, torch.tensor(value))

        def forward(self, x: Tensor) -> Tensor:
            return self.visual(x) * self.logit_scale

    file = tmp_path / "ViT.pt"
    torch.jit.trace(Published().half(), torch.zeros(1, 3, 32, 32).half()).save(str(file))
    with pytest.raises(PeftmarkError, match=f"QuickGELU.*: use open_clip/small-quickgelu@{file}"):
        find_backbone(f"open_clip/small@{file}").build(pretrained=True)
    loaded = find_backbone(f"open_clip/small-quickgelu@{file}").build(pretrained=True).root
    assert torch.equal(loaded.text_projection, model.text_projection.half().float())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.encode_image(images), model.float().encode_image(images), rtol=1e-2, atol=1e-2
        )


def declip_checkpoint(file: Path, embed_dim: int = 48) -> dict[str, Tensor]:
    """As Sense-GVT's solver saves a declip_vitb32: names and shapes of prototype/model, at a small size."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.1

    state = {"logit_scale": torch.tensor([2.0])}
    for prefix in ("visual.", "encode_text."):
        for layer in range(2):
            name = f"{prefix}transformer.resblocks.{layer}"
            state |= {f"{name}.attn.in_proj_weight": draw(192, 64), f"{name}.attn.in_proj_bias": draw(192)}
            state |= {f"{name}.attn.out_proj.weight": draw(64, 64), f"{name}.attn.out_proj.bias": draw(64)}
            state |= {f"{name}.mlp.c_fc.weight": draw(256, 64), f"{name}.mlp.c_fc.bias": draw(256)}
            state |= {f"{name}.mlp.c_proj.weight": draw(64, 256), f"{name}.mlp.c_proj.bias": draw(64)}
            for norm in ("ln_1", "ln_2"):
                state |= {f"{name}.{norm}.weight": 1 + draw(64), f"{name}.{norm}.bias": draw(64)}
    for norm in ("visual.ln_pre", "visual.ln_post", "encode_text.ln_final"):
        state |= {f"{norm}.weight": 1 + draw(64), f"{norm}.bias": draw(64)}
    state |= {
        "visual.class_embedding": draw(64),
        "visual.positional_embedding": draw(5, 64),
        "visual.conv1.weight": draw(64, 3, 16, 16),
        "visual.proj": draw(64, embed_dim),
        "encode_text.positional_embedding": draw(77, 64),
        "encode_text.token_embedding.weight": draw(49409, 64),
        "encode_text.text_projection.weight": draw(embed_dim, 64),
        "encode_text.text_projection.bias": draw(embed_dim),
    }
    # what the other losses train
    for head, parts in (("projector", ("linear1", "bn1", "linear2", "bn2", "linear3", "bn3")),
                        ("predictor", ("linear1", "bn1", "layer2")),
                        ("text_label_predictor", ("",))):  # fmt: skip
        state |= {f"{head}.{part}.weight".replace("..", "."): draw(8, 8) for part in parts}
    state["nn_replacer_text.bank"] = draw(8, 16)
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}, "last_iter": 1}, file)
    return state


def declip_text(state: dict[str, Tensor], words: list[int]) -> Tensor:
    """DeCLIP's own text tower, written out from prototype/model/text_encoder; start and end have ids of their own."""
    ids = torch.tensor([49407, *words, 49408])
    x = state["encode_text.token_embedding.weight"][ids] + state["encode_text.positional_embedding"][: len(ids)]
    for layer in range(2):
        part = {n.split(f"encode_text.transformer.resblocks.{layer}.")[-1]: v for n, v in state.items()
                if f"encode_text.transformer.resblocks.{layer}." in n}  # fmt: skip
        normed = F.layer_norm(x, (64,), part["ln_1.weight"], part["ln_1.bias"])
        q, k, v = F.linear(normed, part["attn.in_proj_weight"], part["attn.in_proj_bias"]).chunk(3, dim=-1)
        q, k, v = (y.view(len(ids), 8, 8).transpose(0, 1) for y in (q, k, v))
        scores = (q @ k.mT / 8**0.5).masked_fill(torch.ones(len(ids), len(ids)).triu(1).bool(), float("-inf"))
        read = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        x = x + F.linear(read, part["attn.out_proj.weight"], part["attn.out_proj.bias"])
        hidden = F.linear(F.layer_norm(x, (64,), part["ln_2.weight"], part["ln_2.bias"]), part["mlp.c_fc.weight"],
                          part["mlp.c_fc.bias"])  # fmt: skip
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        x = x + F.linear(hidden, part["mlp.c_proj.weight"], part["mlp.c_proj.bias"])
    x = F.layer_norm(x, (64,), state["encode_text.ln_final.weight"], state["encode_text.ln_final.bias"])[-1]
    return F.linear(x, state["encode_text.text_projection.weight"], state["encode_text.text_projection.bias"])


def test_declip(tmp_path: Path) -> None:
    file = tmp_path / "declip.pth"
    state = declip_checkpoint(file)
    anatomy = find_backbone(f"open_clip/small@{file}").build(pretrained=True)
    text = anatomy.text_tower()
    ids = text.tokenize(["a dog"])
    words = ids[0, 1:3].tolist()
    with torch.no_grad():
        torch.testing.assert_close(
            text.encode(text.embed(ids), ids)[0], declip_text(state, words), rtol=1e-4, atol=1e-5
        )
    visual = anatomy.model
    assert torch.equal(visual.proj, state["visual.proj"])
    assert type(visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert anatomy.root.logit_scale.item() == 2.0
    assert (anatomy.pixels.mean, anatomy.pixels.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    model = adapt(anatomy, "coop", class_names=("dog", "cat")).eval()
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 2)


def test_a_declip_that_does_not_fit_says_so(tmp_path: Path) -> None:
    file = tmp_path / "declip.pth"
    state = declip_checkpoint(file)
    del state["visual.ln_post.bias"]
    torch.save({"model": state}, file)
    with pytest.raises(PeftmarkError, match=r"1 missing \(e.g. visual.ln_post.bias\)"):
        find_backbone(f"open_clip/small@{file}").build(pretrained=True)
    state["visual.ln_post.bias"] = torch.zeros(3)
    torch.save({"model": state}, file)
    with pytest.raises(
        PeftmarkError, match=r"1 of another shape \(e.g. visual.ln_post.bias: \(3,\) in the file, \(64,\)"
    ):
        find_backbone(f"open_clip/small@{file}").build(pretrained=True)
    torch.save({"model": {**state, "encode_text.text_transformer.bert.x": torch.zeros(1)}}, file)
    with pytest.raises(PeftmarkError, match="a DeCLIP whose text tower is a Hugging Face model"):
        find_backbone(f"open_clip/small@{file}").build(pretrained=True)


def test_a_native_clip_s_weights_on_a_custom_text_tower(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = open_clip.create_model("small", pretrained=None).state_dict()
    torch.save(state, tmp_path / "clip.pth")
    model = find_backbone(f"open_clip/small-custom@{tmp_path / 'clip.pth'}").build(pretrained=True).root
    assert torch.equal(model.text.token_embedding.weight, state["token_embedding.weight"])


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_as_open_clip_saves_it(safe: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = open_clip.create_model("small", pretrained=None)
    folder = tmp_path / "open_clip" / "small.mine"
    folder.mkdir(parents=True)
    if safe:
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    else:
        torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    images = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bicubic"}
    saved = {"model_cfg": open_clip.get_model_config("small"), "preprocess_cfg": images}
    (folder / "open_clip_config.json").write_text(json.dumps(saved))
    for name in (f"open_clip/small@{folder}", "open_clip/small.mine"):
        backbone = find_backbone(name)
        anatomy = backbone.build(pretrained=True)
        assert torch.equal(anatomy.root.text_projection, model.text_projection)
        assert (anatomy.pixels.mean, anatomy.pixels.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        assert backbone.weights_id(pretrained=True) == hashlib.sha256(backbone.weights_file().read_bytes()).hexdigest()
    with pytest.raises(PeftmarkError, match="another architecture: quick_gelu is None there and True here"):
        find_backbone(f"open_clip/small-quickgelu@{folder}").build(pretrained=True)
    (folder / "open_clip_config.json").write_text("{}")
    with pytest.raises(PeftmarkError, match="no model_cfg that can be read"):
        find_backbone(f"open_clip/small@{folder}").build(pretrained=True)
    with pytest.raises(PeftmarkError, match=f"the folder {tmp_path} holds no weights: put one of open_clip_model"):
        find_backbone(f"open_clip/small@{tmp_path}")


def test_positions_of_another_grid_are_resampled(tmp_path: Path) -> None:
    """The class token's stays; a constant over the grid stays one. Texts of another length are refused."""
    state = open_clip.create_model("small", pretrained=None).state_dict()
    width = state["visual.positional_embedding"].shape[1]
    positions = torch.cat((torch.full((1, width), 3.0), torch.full((16, width), 0.5)))
    file = tmp_path / "clip.pth"
    torch.save({**state, "visual.positional_embedding": positions.half()}, file)
    loaded = find_backbone(f"open_clip/small@{file}").build(pretrained=True).model.positional_embedding
    assert loaded.shape == (5, width)
    torch.testing.assert_close(loaded[0], torch.full((width,), 3.0))
    torch.testing.assert_close(loaded[1:], torch.full((4, width), 0.5))
    torch.save({**state, "positional_embedding": torch.zeros(99, 64)}, file)
    with pytest.raises(PeftmarkError, match=r"positional_embedding: \(99, 64\) in the file, \(77, 64\)"):
        find_backbone(f"open_clip/small@{file}").build(pretrained=True)
    torch.save({**state, "visual.positional_embedding": torch.zeros(16, width)}, file)
    with pytest.raises(PeftmarkError, match="does not fit the architecture"):
        find_backbone(f"open_clip/small@{file}").build(pretrained=True)


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("ViT-B-16-SigLIP", (0.5, 0.5, 0.5)),
        ("ViT-B-32", (0.48145466, 0.4578275, 0.40821073)),
        ("small", (0.48145466, 0.4578275, 0.40821073)),
    ],
)
def test_images_are_normalised_as_the_weights_expect(name: str, mean: tuple[float, ...]) -> None:
    assert find_backbone(f"open_clip/{name}").build(pretrained=False).pixels.mean == mean
