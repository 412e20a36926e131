"""Models of Hugging Face transformers: its own logits, every part in its place, one clear line for what is wrong."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from inserts import Add, Double
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from vision_language import save_transformers

from peftmark.adapting import adapt
from peftmark.backbones import Anatomy, find_backbone
from peftmark.backbones.anatomy.segments import run_segments
from peftmark.backbones.anatomy.slots import module_slots
from peftmark.errors import PeftmarkError

FAMILIES = ("clip", "siglip", "flava", "align")
WITH_TOKENS = FAMILIES[:3]
NAMES = ("red apple", "grinning face", "sailboat", "dog")


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(family: str, tmp_path: Path) -> Path:
    """As `save_pretrained` writes a model."""
    save_transformers(family, tmp_path / family)
    return tmp_path / family


def build(folder: Path, pretrained: bool = True) -> Anatomy:
    anatomy = find_backbone(f"hf/{folder}").build(pretrained)
    anatomy.root.eval()
    return anatomy


def images_for(anatomy: Anatomy, n: int = 3) -> Tensor:
    return torch.randn(n, 3, *anatomy.image_size, generator=torch.Generator().manual_seed(1))


def own_logits(family: str, folder: Path, images: Tensor, texts: list[str]) -> Tensor:
    """What transformers itself computes; of FLAVA, what its contrastive head is given."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    # SigLIP's own processor pads to the whole length and gives no mask
    padding: dict[str, Any] = {"padding": "max_length", "max_length": 24} if family == "siglip" else {"padding": True}
    inputs = tokenizer(texts, return_tensors="pt", **padding)
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")[: 1 if family == "siglip" else 2]}
    with torch.no_grad():
        if family != "flava":
            return model(**inputs, pixel_values=images).logits_per_image
        image = model.get_image_features(images).pooler_output[:, 0]
        text = model.get_text_features(**inputs).pooler_output[:, 0]
        image, text = (nn.functional.normalize(features, dim=-1) for features in (image, text))
        return model.logit_scale.exp() * image @ text.T


def test_logits_are_the_library_s_own(family: str, folder: Path) -> None:
    anatomy = build(folder)
    texts = [f"a photo of a {name}." for name in NAMES]
    expected = own_logits(family, folder, images_for(anatomy), texts)
    model = adapt(anatomy, "zero_shot", class_names=NAMES, templates=["a photo of a {}."]).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images_for(anatomy)), expected, rtol=1e-5, atol=1e-5)
        # the whole model still runs as transformers wrote it
        whole = anatomy.root.get_image_features(images_for(anatomy)).pooler_output
        whole = whole[:, 0] if family == "flava" else whole
        torch.testing.assert_close(anatomy.projected(images_for(anatomy)), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", WITH_TOKENS, indirect=True)
def test_parts(family: str, folder: Path) -> None:
    anatomy = build(folder)
    tower = anatomy.model
    assert (anatomy.grid, anatomy.prefix_tokens, anatomy.width) == ((4, 4), int(family != "siglip"), 32)
    layers = tower.encoder.layer if family == "flava" else tower.encoder.layers
    assert [block.module for block in anatomy.blocks] == list(layers)
    block = anatomy.blocks[1]
    names = {id(parameter): name for name, parameter in layers[1].named_parameters()}
    weights = {part: names[id(linear.module.weight)] for part, linear in block.projections.items()}
    if family == "flava":
        assert weights == {
            "q": "attention.attention.query.weight",
            "k": "attention.attention.key.weight",
            "v": "attention.attention.value.weight",
            "proj": "attention.output.dense.weight",
            "fc1": "intermediate.dense.weight",
            "fc2": "output.dense.weight",
        }
    else:
        assert weights == {
            "q": "self_attn.q_proj.weight",
            "k": "self_attn.k_proj.weight",
            "v": "self_attn.v_proj.weight",
            "proj": "self_attn.out_proj.weight",
            "fc1": "mlp.fc1.weight",
            "fc2": "mlp.fc2.weight",
        }
    assert block.attention.num_heads == 4
    assert not any(parameter.requires_grad for parameter in anatomy.root.parameters())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("family", WITH_TOKENS, indirect=True)
def test_empty_slots_change_nothing(training: bool, folder: Path) -> None:
    anatomy = build(folder)
    text = anatomy.text_tower()
    anatomy.root.train(training)
    images, ids = images_for(anatomy), text.tokenize(["a photo of a dog.", "dog"])
    with torch.no_grad():
        torch.manual_seed(3)
        before = anatomy.projected(images), text.encode(text.embed(ids), ids)
        names = [name for name, _ in anatomy.root.named_modules()]
        for block in (*anatomy.blocks, *text.blocks):
            block.slots()
            block.attention.add_query(Add(0.0)) if block in anatomy.blocks else None
            for operation in block.operations:
                module_slots(operation.module)
        torch.manual_seed(3)
        after = anatomy.projected(images), text.encode(text.embed(ids), ids)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    anatomy.clear()
    assert [name for name, _ in anatomy.root.named_modules()] == names


@pytest.mark.parametrize("family", WITH_TOKENS, indirect=True)
def test_slots_of_a_block_are_its_formula(family: str, folder: Path) -> None:
    anatomy, bare = build(folder), build(folder)
    block, parts = anatomy.blocks[0], bare.blocks[0]
    block.attention.add_serial(Add(1.0))
    block.mlp.add_parallel(Add(2.0))
    block.mlp.add_parallel_norm(Add(0.5))
    block.attention.q.add_delta(Double())
    with torch.no_grad():
        parts.attention.q.weight.mul_(2)
        x = torch.randn(2, 17, 32)
        attended = parts.attention.module(parts.attention.norm.module(x))[0]
        if family == "flava":
            attended = parts.attention.output.module(attended)
        middle = x + attended + 1
        normed = parts.mlp.norm.module(middle)
        activation = nn.functional.gelu if family == "flava" else None
        if activation is None:
            mlp = parts.module.mlp(normed)
        else:
            mlp = parts.mlp.output.module(activation(parts.mlp.inputs[0].module(normed)))
        expected = middle + mlp + (middle + 2) + (normed + 0.5)
        output = block.module(x, attention_mask=None)
    output = output[0] if isinstance(output, tuple) else output
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", WITH_TOKENS, indirect=True)
def test_segments_own_every_parameter_once(family: str, folder: Path) -> None:
    anatomy = build(folder)
    images = images_for(anatomy)
    for output in ("pooled", "projected"):
        segments = anatomy.segments(output)
        last = ["tail", "projection"] if output == "projected" and family != "siglip" else ["tail"]
        assert [segment.name for segment in segments] == ["stem", "block 0", "block 1", *last]
        with torch.no_grad():
            assert torch.equal(run_segments(segments, images), getattr(anatomy, output)(images))
    owned = [id(p) for segment in segments for module in segment.modules for p in module.parameters()]
    assert sorted(owned) == sorted(id(parameter) for _, parameter in anatomy.named_parameters())
    text = {name for name, _ in anatomy.text_tower().named_parameters()}
    image = {id(parameter) for _, parameter in anatomy.named_parameters()}
    scales = {"logit_scale", "logit_bias"} if family == "siglip" else {"logit_scale"}
    assert {n for n, p in anatomy.root.named_parameters() if id(p) not in image} - text == scales


METHODS = ("linear", "full", "bitfit", "layernorm", "lora", "adaptformer", "convpass", "vpt_shallow", "vpt_deep",
           "gated_vpt", "prefix_tuning", "ssf", "houlsby_adapter", "fact_tt", "repadapter", "dora", "ia3")  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", WITH_TOKENS, indirect=True)
def test_methods_train(method: str, folder: Path) -> None:
    """Every trainable tensor has a gradient, and nothing else is left of the method after merging or clearing."""
    for task in ({"num_classes": 3}, {"class_names": NAMES}):
        anatomy, bare = build(folder), build(folder)
        if "num_classes" in task:
            bare.drop_text()
        names = [name for name, _ in bare.model.named_modules()]
        model = adapt(anatomy, method, **task)
        for parameter in model.parameters():
            if parameter.requires_grad and not parameter.any():
                nn.init.normal_(parameter, std=0.1)
        images = images_for(anatomy)
        loss = model(images).logsumexp(dim=-1).sum()
        if loss.requires_grad:
            loss.backward()
        assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
        if model.anatomy.mergeable:
            model.eval()
            with torch.no_grad():
                before = model(images)
                model.merge()
                torch.testing.assert_close(model(images), before, rtol=1e-3, atol=1e-3)
        else:
            anatomy.clear()
        assert [name for name, _ in anatomy.model.named_modules()] == names


def test_drawn_weights_need_a_config_alone(family: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in folder.iterdir():
        if file.name != "config.json":
            file.unlink()
    opened = []
    monkeypatch.setattr(socket.socket, "connect", lambda *arguments: opened.append(arguments))
    torch.manual_seed(0)
    anatomy = build(folder, pretrained=False)
    assert anatomy.pooled(images_for(anatomy)).shape == (3, anatomy.feature_dim)
    assert find_backbone(f"hf/{folder}").weights_id(pretrained=False) == "random"
    with pytest.raises(PeftmarkError, match=r"the tokenizer of hf/.* cannot be had .*put its files") as error:
        anatomy.text_tower().tokenize(["a dog"])
    assert "\n" not in str(error.value)
    with pytest.raises(PeftmarkError, match=r"there is no model\.safetensors in this folder"):
        build(folder)
    assert opened == []


@pytest.mark.parametrize("family", ["clip"], indirect=True)
def test_weights_of_a_folder_or_a_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "model.safetensors"
    backbone = find_backbone(f"hf/{folder}")
    assert backbone.weights_id(pretrained=True) == hashlib.sha256(file.read_bytes()).hexdigest()
    state = load_file(file)
    assert torch.equal(build(folder).root.text_projection.weight, state["text_projection.weight"])
    # older checkpoints hold position ids, and half precision
    other = {name: (value / 2).half() for name, value in state.items()}
    save_file({**other, "text_model.embeddings.position_ids": torch.arange(24)[None]}, tmp_path / "other.safetensors")
    anatomy = find_backbone(f"hf/{folder}@{tmp_path / 'other.safetensors'}").build(pretrained=True)
    assert anatomy.root.text_projection.weight.dtype == torch.float32
    assert torch.equal(anatomy.root.text_projection.weight, other["text_projection.weight"].float())
    del other["logit_scale"]
    save_file({**other, "vision_model.more": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(PeftmarkError, match=r"1 missing \(e.g. logit_scale\), 1 left over|1 missing.*1 unexpected"):
        find_backbone(f"hf/{folder}@{tmp_path / 'wrong.safetensors'}").build(pretrained=True)
    save_file({**state, "text_projection.weight": torch.zeros(3, 3)}, tmp_path / "shape.safetensors")
    with pytest.raises(PeftmarkError, match="does not fit the architecture"):
        find_backbone(f"hf/{folder}@{tmp_path / 'shape.safetensors'}").build(pretrained=True)
    # a hub's name, laid into the weights folder
    monkeypatch.setenv("PEFTMARK_WEIGHTS", str(tmp_path))
    (tmp_path / "hf" / "openai").mkdir(parents=True)
    folder.rename(tmp_path / "hf" / "openai" / "tiny")
    named = find_backbone("hf/openai/tiny").build(pretrained=True)
    assert torch.equal(named.root.text_projection.weight, state["text_projection.weight"])
    assert named.text_tower().tokenize(["a dog"]).shape == (1, 24)


@pytest.mark.parametrize("family", ["clip", "align"], indirect=True)
def test_images_are_normalised_as_the_folder_says(folder: Path, family: str) -> None:
    assert build(folder).pixels.mean == ((0.48145466, 0.4578275, 0.40821073) if family == "clip" else (0.5, 0.5, 0.5))
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "crop_size": {"height": 40, "width": 40}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    anatomy = build(folder)
    assert (anatomy.pixels.mean, anatomy.pixels.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert anatomy.image_size == ((40, 40) if family == "align" else (32, 32))


def test_a_model_that_cannot_be_had_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTMARK_WEIGHTS", str(tmp_path))
    for pretrained in (True, False):
        with pytest.raises(PeftmarkError) as error:
            find_backbone("hf/openai/clip-vit-nowhere").build(pretrained)
        assert str(tmp_path / "hf" / "openai" / "clip-vit-nowhere") in str(error.value)
        assert "\n" not in str(error.value)
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(PeftmarkError, match="of type 'bert'; peftmark knows clip, siglip, align, flava, vit"):
        find_backbone(f"hf/{tmp_path / 'bert'}").build(pretrained=False)
    (tmp_path / "bert" / "config.json").write_text("{")
    with pytest.raises(PeftmarkError, match=r"cannot read its config\.json"):
        find_backbone(f"hf/{tmp_path / 'bert'}").build(pretrained=False)


@pytest.mark.parametrize("family", WITH_TOKENS, indirect=True)
def test_tokens_are_mapped_before_the_blocks(folder: Path) -> None:
    """With their positions, in front of a norm where there is one."""
    anatomy, bare = build(folder), build(folder)
    anatomy.add_before_blocks(Add(0.5))
    images, embeddings = images_for(anatomy), bare.stem_modules[0]
    embeddings.register_forward_hook(lambda _module, _inputs, tokens: tokens + 0.5)
    with torch.no_grad():
        torch.testing.assert_close(anatomy.pooled(images), bare.pooled(images))
