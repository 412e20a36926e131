"""ViT of Hugging Face transformers: its own features, every part in its place, its checkpoints with a classifier."""

from __future__ import annotations

import copy
import socket
from pathlib import Path

import pytest
import torch
import transformers
from inserts import Add, Double
from torch import Tensor, nn

from peftmark.adapting import adapt
from peftmark.backbones import anatomy_of, find_backbone
from peftmark.backbones.anatomy.segments import run_segments
from peftmark.backbones.anatomy.slots import module_slots
from peftmark.errors import PeftmarkError, Unsupported

CONFIG = transformers.ViTConfig(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8,
    num_labels=5,
)  # fmt: skip


@pytest.fixture
def whole() -> nn.Module:
    """With a classifier, far from where its weights start."""
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(CONFIG).eval()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.2)
    return model


def images(n: int = 3) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_features_are_what_its_own_classifier_reads(whole: nn.Module) -> None:
    for model in (whole, whole.vit):
        anatomy = anatomy_of(model)
        anatomy.root.eval()
        with torch.no_grad():
            expected = whole.vit(images()).last_hidden_state
            assert torch.equal(anatomy.pooled(images()), expected[:, 0])
            assert torch.equal(whole.classifier(anatomy.pooled(images())), whole(images()).logits)
            assert torch.equal(anatomy.tokens(images()), expected[:, 1:].unflatten(1, (4, 4)))
    assert (anatomy.grid, anatomy.prefix_tokens, anatomy.width, anatomy.feature_dim) == ((4, 4), 1, 32, 32)
    assert (anatomy.library_prefix, anatomy.classifier) == ("vit.", "classifier")
    names = {id(parameter): name for name, parameter in anatomy.blocks[1].module.named_parameters()}
    assert {part: names[id(linear.module.weight)] for part, linear in anatomy.blocks[1].projections.items()} == {
        "q": "attention.q_proj.weight",
        "k": "attention.k_proj.weight",
        "v": "attention.v_proj.weight",
        "proj": "attention.o_proj.weight",
        "fc1": "mlp.fc1.weight",
        "fc2": "mlp.fc2.weight",
    }


def test_segments_own_every_parameter_once(whole: nn.Module) -> None:
    anatomy = anatomy_of(whole)
    anatomy.root.eval()
    segments = anatomy.segments("pooled")
    with torch.no_grad():
        assert torch.equal(run_segments(segments, images()), anatomy.pooled(images()))
    owned = [id(p) for segment in segments for module in segment.modules for p in module.parameters()]
    assert sorted(owned) == sorted(id(parameter) for _, parameter in anatomy.named_parameters())


@pytest.mark.parametrize("training", [False, True])
def test_empty_slots_change_nothing(training: bool, whole: nn.Module) -> None:
    whole.vit.config.hidden_dropout_prob = 0.0
    anatomy = anatomy_of(whole)
    anatomy.root.train(training)
    with torch.no_grad():
        before = anatomy.pooled(images())
        for block in anatomy.blocks:
            block.slots()
            block.attention.add_query(Add(0.0))
            for operation in block.operations:
                module_slots(operation.module)
        torch.testing.assert_close(anatomy.pooled(images()), before, rtol=1e-5, atol=1e-5)


def test_slots_of_a_block_are_its_formula(whole: nn.Module) -> None:
    anatomy, bare = anatomy_of(whole), anatomy_of(whole)
    for each in (anatomy, bare):
        each.root.eval()
    block, parts = anatomy.blocks[0], bare.blocks[0]
    block.attention.add_serial(Add(1.0))
    block.mlp.add_parallel(Add(2.0))
    block.mlp.add_parallel_norm(Add(0.5))
    block.attention.q.add_delta(Double())
    with torch.no_grad():
        parts.attention.q.weight.mul_(2)
        x = torch.randn(2, 17, 32)
        middle = x + parts.attention.module(parts.attention.norm.module(x))[0] + 1
        normed = parts.mlp.norm.module(middle)
        expected = middle + parts.module.mlp(normed) + (middle + 2) + (normed + 0.5)
        torch.testing.assert_close(block.module(x, None), expected, rtol=1e-4, atol=1e-4)


METHODS = ("linear", "full", "bitfit", "lora", "adaptformer", "vpt_shallow", "vpt_deep", "prefix_tuning", "ssf",
           "houlsby_adapter", "repadapter", "ia3")  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_methods_train(method: str, whole: nn.Module) -> None:
    model = adapt(whole, method, num_classes=3)
    for parameter in model.parameters():
        if parameter.requires_grad and not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    model(images()).logsumexp(dim=-1).sum().backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    if model.anatomy.mergeable:
        model.eval()
        with torch.no_grad():
            before = model(images())
            torch.testing.assert_close(model.merge()(images()), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("classifier", [True, False])
def test_a_folder(classifier: bool, whole: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `save_pretrained` writes it, with a classifier, which is no part of a backbone, or with a pooler."""
    opened = []
    monkeypatch.setattr(socket.socket, "connect", lambda *arguments: opened.append(arguments))
    (whole if classifier else whole.vit).save_pretrained(tmp_path / "vit")
    anatomy = find_backbone(f"hf/{tmp_path / 'vit'}").build(pretrained=True)
    anatomy.root.eval()
    with torch.no_grad():
        assert torch.equal(anatomy.pooled(images()), whole.vit(images()).last_hidden_state[:, 0])
    assert anatomy.pixels.mean == (0.5, 0.5, 0.5)
    drawn = find_backbone(f"hf/{tmp_path / 'vit'}").build(pretrained=False)
    assert drawn.pooled(images()).shape == (3, 32)
    assert [name for name, _ in drawn.named_parameters()] == [name for name, _ in anatomy.named_parameters()]
    assert opened == []


def test_what_it_lacks_is_said(whole: nn.Module) -> None:
    for call in (lambda a: a.projected(images()), lambda a: a.text_tower(), lambda a: a.output_width("projected")):
        with pytest.raises(Unsupported, match="ViTForImageClassification has no text tower"):
            call(anatomy_of(whole))
    with pytest.raises(PeftmarkError, match="tokenizer= is for models with a text tower"):
        anatomy_of(whole, tokenizer=lambda texts: texts)
    before = copy.deepcopy(whole.state_dict())
    adapt(whole, "full", num_classes=2)
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())
