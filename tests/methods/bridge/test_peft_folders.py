"""From a native method to a PEFT folder and back: equal logits in PEFT's own model and in ours."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

peft = pytest.importorskip("peft")

from folders import CLASSES, LIBRARIES, images, load, logits, trained, whole_model  # noqa: E402

from peftmark.adapting import adapt  # noqa: E402
from peftmark.errors import PeftmarkError, Unsupported  # noqa: E402
from peftmark.methods.bridge.export import export_peft  # noqa: E402
from peftmark.tasks import Classification  # noqa: E402

ALL = ("q", "k", "v", "proj", "fc1", "fc2")
NATIVE: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {}),
    "lora of every map": ("lora", {"targets": ALL, "rank": 3, "alpha": 4.0}),
    "lora of v": ("lora", {"targets": ("v",)}),
    "lora_fused": ("lora_fused", {}),
    "ia3": ("ia3", {}),
    "vera": ("vera", {"rank": 16}),
    "vera of every map": ("vera", {"targets": ALL, "rank": 8}),
    "dora": ("dora", {}),
    "dora of every map": ("dora", {"targets": ALL}),
    "layernorm": ("layernorm", {}),
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("case", NATIVE)
def test_round_trip(case: str, library: str, tmp_path: Path) -> None:
    method, config = NATIVE[case]
    whole = whole_model(library)
    model = trained(whole, method, **config)
    assert (logits(model) - logits(whole)).abs().max() > 0.1
    assert export_peft(model, tmp_path / "adapter") == tmp_path / "adapter"
    theirs = load(whole, tmp_path / "adapter")
    # zeros beside a block change how sums are rounded, nothing else
    torch.testing.assert_close(logits(theirs), logits(model), rtol=1e-5, atol=5e-6)
    close = 1e-6 if method == "dora" else 1e-10  # the norms of rows that DoRA leaves alone are written in float32
    exact = [logits(each, torch.float64) for each in (theirs, model)]
    torch.testing.assert_close(*exact, rtol=close, atol=close)
    ours = adapt(whole, "peft_folder/mine", num_classes=CLASSES, path=str(tmp_path / "adapter"))
    assert torch.equal(logits(ours), logits(theirs))
    assert torch.equal(ours.head.weight, model.head.weight)
    merged = copy.deepcopy(ours).eval().merge()
    assert {type(module) for module in merged.backbone.modules()} <= {type(module) for module in whole.modules()}
    torch.testing.assert_close(logits(merged), logits(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["lora", "lora_fused", "ia3", "vera", "layernorm"])
def test_one_to_one_where_q_k_and_v_are_apart(case: str, tmp_path: Path) -> None:
    """No zeros are added: the tensors are ours, and the logits equal to the last bit."""
    method, config = NATIVE[case]
    whole = whole_model("transformers")
    model = trained(whole, method, **config)
    export_peft(model, tmp_path)
    assert torch.equal(logits(load(whole, tmp_path)), logits(model))
    written = sum(tensor.numel() for tensor in load_file(tmp_path / "adapter_model.safetensors").values())
    own = sum(tensor.numel() for tensor in model.adapter_state_dict().values())
    # VeRA's A and B are drawn here; lora_fused's A is shared by three
    more = {"vera": 2 * 16 * 48, "lora_fused": 2 * 2 * 8 * 48}
    assert written == own + more.get(case, 0)


def test_a_fused_layer_is_changed_block_by_block(tmp_path: Path) -> None:
    model = trained(whole_model("timm"), "lora", rank=3, alpha=6.0)
    export_peft(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["modules_to_save"]) == (6, 12, ["head"])
    assert config["target_modules"] == ["blocks.0.attn.qkv", "blocks.1.attn.qkv"]
    state = load_file(tmp_path / "adapter_model.safetensors")
    q, v = (insertion.insert for insertion in model.anatomy.log[:2])
    name = "base_model.model.blocks.0.attn.qkv"
    assert torch.equal(state[f"{name}.lora_A.weight"], torch.cat([q.down, v.down]))
    up = state[f"{name}.lora_B.weight"]
    assert torch.equal(up[:48, :3], q.up)
    assert torch.equal(up[96:, 3:], v.up)
    assert up.count_nonzero() == q.up.count_nonzero() + v.up.count_nonzero()
    assert torch.equal(state["base_model.model.head.weight"], model.head.weight)


def test_the_same_adapter_is_the_same_bytes(tmp_path: Path) -> None:
    model = trained(whole_model("timm"), "ia3")
    one, other = export_peft(model, tmp_path / "a"), export_peft(model, tmp_path / "b")
    for file in one.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes()
    assert json.loads((one / "adapter_config.json").read_text())["feedforward_modules"] == [
        "blocks.0.mlp.fc2",
        "blocks.1.mlp.fc2",
    ]


@pytest.mark.parametrize("method", ["lora", "ia3", "layernorm", "dora"])
def test_families_with_linear_maps(method: str, tmp_path: Path) -> None:
    """ConvNeXt's classifier is a part of its head; Swin has four widths."""
    swin = {"img_size": 32, "window_size": 4, "embed_dim": 24, "depths": (2, 1), "num_heads": (2, 2)}
    for name, sizes in (
        ("convnext_tiny", {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 24)}),
        ("swin_tiny_patch4_window7_224", swin),
    ):
        torch.manual_seed(0)
        whole = timm.create_model(name, num_classes=CLASSES, **sizes).eval()
        model = trained(whole, method)
        folder = export_peft(model, tmp_path / name)
        torch.testing.assert_close(logits(load(whole, folder)), logits(model), rtol=1e-5, atol=1e-5)


def small_clip() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 64, "max_position_embeddings": 8, "eos_token_id": 63}
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


def tokens(texts: Sequence[str], length: int) -> torch.Tensor:
    """The number of letters of each, between a start and an end."""
    return torch.stack([nn.functional.pad(torch.tensor([62, len(text), 63]), (0, length - 3)) for text in texts])


def test_an_open_vocabulary_has_no_head(tmp_path: Path) -> None:
    clip, names = small_clip().eval(), ("cat", "sailboat", "hammer")
    asked: dict[str, Any] = {"class_names": names, "templates": ["{}"], "tokenizer": tokens}
    model = adapt(clip, "lora", **asked)
    with torch.no_grad():
        for insertion in model.anatomy.log:
            nn.init.normal_(insertion.insert.up, std=0.3)
    export_peft(model.eval(), tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"] is None
    inputs = {"input_ids": tokens(names, 8), "pixel_values": images()}
    ours = adapt(clip, "peft_folder/x", **asked, path=str(tmp_path)).eval()
    with torch.no_grad():
        expected = load(clip, tmp_path)(**inputs).logits_per_image
        assert (expected - clip(**inputs).logits_per_image).abs().max() > 1e-3
        torch.testing.assert_close(model(images()), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours(images()), expected, rtol=1e-5, atol=1e-5)


class Tokens(Classification):
    """Classes of each patch."""

    output = "tokens"


def test_what_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(model: Any, message: str, kind: type[PeftmarkError] = Unsupported) -> None:
        with pytest.raises(kind, match=message) as error:
            export_peft(model, tmp_path / "out")
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()

    whole = whole_model("timm")
    for method, name in (("vpt_deep", "VPTDeep"), ("bitfit", "BitFit"), ("full", "Full")):
        refused(adapt(whole, method, num_classes=2), f"{name}.* has no equal among PEFT's tuners")
    refused(adapt("embedded/clip", "lora", num_classes=2), "embedded/clip has layers that its library's own model has")
    refused(adapt(whole, "lora", num_classes=2, num_frames=2), "this one reads clips")
    refused(
        adapt(whole, "lora", objective=Tokens(2)),
        "the head of a classifier of pooled features: this one is a Linear of tokens",
    )
    convolutions = timm.create_model("convnext_atto", num_classes=2)
    refused(adapt(convolutions, "lora", num_classes=2), "of changed linear layers; ConvNeXt has 1x1 convolutions")
    clip = small_clip()
    refused(adapt(clip, "lora", num_classes=2), "no model with one linear classifier on its features")
    lora = adapt(whole, "lora", num_classes=2)
    monkeypatch.setitem(sys.modules, "peft", None)
    refused(lora, r"to write a PEFT folder needs the extra: pip install peftmark\[peft\]", PeftmarkError)
    monkeypatch.undo()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "adapter_config.json").write_text("{}")
    with pytest.raises(PeftmarkError, match=r"there is an adapter_config.json in .* already: name another folder"):
        export_peft(lora, tmp_path / "there")
    (tmp_path / "file").write_text("")
    with pytest.raises(PeftmarkError, match=r"cannot write to .*file \("):
        export_peft(lora, tmp_path / "file")
