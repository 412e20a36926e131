"""Hugging Face PEFT's tuners, through the bridge: every one that can adapt an image backbone."""

from __future__ import annotations

import copy
import json
import sys
import warnings
from typing import Any

import pytest
import safetensors.torch
import torch
from bridged import CASE, adapted, features, train, vit
from invariants import CLASS_NAMES, Case, labels, logits

from peftmark import METHODS
from peftmark.adapting import adapt
from peftmark.backbones import find_backbone
from peftmark.backbones.anatomy.slots import is_inserted
from peftmark.errors import NotMergeable, PeftmarkError, Unsupported
from peftmark.methods import Context, make_method
from peftmark.methods.bridge import hf_peft
from peftmark.methods.bridge.library import NOT_MERGEABLE
from peftmark.results import canonical_json

peft = pytest.importorskip("peft")
MEMBERS = METHODS.expand("peft/*")
NO_IDENTITY = {
    "peft/c3a": "its kernels start as Xavier draws",
    "peft/fourierft": "its spectrum starts as normal draws",
    "peft/unilora": "its one vector starts as uniform draws, and both factors read it",
    "peft/vblora": "its vector bank starts as uniform draws, and both factors read it",
}
ROUNDED = {
    "peft/deft": "a projection is removed from the weight and added again",
    "peft/frod": "the weight is put together again from its joint decomposition",
    "peft/hra": "a pair of equal reflections",
    "peft/osf": "the weight is put together again from its singular vectors",
}
"""The identity up to the last bits of float32."""


@pytest.fixture(params=MEMBERS)
def method(request: pytest.FixtureRequest) -> str:
    """Every tuner of the installed PEFT that can adapt an image backbone."""
    return request.param


def test_every_tuner_of_peft_is_a_member_or_excluded_with_a_reason() -> None:
    members = {name.removeprefix("peft/") for name in MEMBERS}
    assert members | set(hf_peft.EXCLUDED) == {kind.value.lower() for kind in peft.PEFT_TYPE_TO_CONFIG_MAPPING}
    assert members.isdisjoint(hf_peft.EXCLUDED)
    for tuner, reason in hf_peft.EXCLUDED.items():
        with pytest.raises(PeftmarkError) as error:
            make_method(f"peft/{tuner}")
        assert str(error.value) == f"method 'peft/{tuner}' is not for images: {reason}"


def test_starts_as_the_bare_backbone(method: str) -> None:
    difference = (features(adapted(method)) - features(vit())).abs().max().item()
    if method in NO_IDENTITY:
        assert difference > 1e-5
    elif method in ROUNDED:
        assert 0 < difference < 2e-6
    else:
        assert difference == 0


def test_defaults_warn_of_nothing(method: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        adapted(method)


def test_every_trainable_tensor_gets_a_gradient(method: str) -> None:
    assert [name for name, had_gradient in train(adapted(method)).items() if not had_gradient] == []


def test_what_trains_is_what_peft_trains(method: str) -> None:
    """Beside PEFT's own model of the same layers."""
    model, anatomy = adapted(method), vit()
    for block in anatomy.blocks:
        block.attention.split()
    config = model.anatomy.log[0].insert.tuner.peft_config["default"]
    peft.PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](anatomy.model, copy.deepcopy(config), "default")
    theirs = [parameter.shape for parameter in anatomy.model.parameters() if parameter.requires_grad]
    ours = [parameter.shape for parameter in model.backbone.parameters() if parameter.requires_grad]
    assert sorted(ours) == sorted(theirs) != []
    assert model.trainable_parameters(include_head=False) == sum(shape.numel() for shape in theirs)
    inserted = {name for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert all(is_inserted(name) for name in inserted)


def test_frozen_tensors_stay_bit_identical(method: str) -> None:
    """Buffers too; tuners that share a trained tensor among layers show it under several names."""
    model = adapted(method)
    trained = {p.data_ptr() for p in model.parameters() if p.requires_grad}
    frozen = {name: value for name, value in model.state_dict().items() if value.data_ptr() not in trained}
    before = {name: value.clone() for name, value in frozen.items()}
    train(model)
    after = model.state_dict()
    assert len(before) > 50
    assert [name for name, value in before.items() if not torch.equal(value, after[name])] == []


def test_training_changes_the_features(method: str) -> None:
    model = adapted(method)
    before = features(model)
    train(model)
    assert not torch.equal(features(model), before)


def test_merge_keeps_the_logits_and_the_backbone_s_structure(method: str) -> None:
    model = adapted(method)
    train(model)
    before = logits(model, CASE)
    if method.removeprefix("peft/") in NOT_MERGEABLE:
        assert not model.anatomy.mergeable
        with pytest.raises(NotMergeable, match="cannot be folded into weights: its router"):
            model.merge()
        assert torch.equal(logits(model, CASE), before)
        return
    assert model.anatomy.mergeable
    model.merge()
    torch.testing.assert_close(logits(model, CASE), before, rtol=1e-4, atol=1e-5)
    bare = vit()
    assert [(n, type(m)) for n, m in model.backbone.named_modules()] == [
        (n, type(m)) for n, m in bare.root.named_modules()
    ]
    assert {n: p.shape for n, p in model.backbone.named_parameters()} == {
        n: p.shape for n, p in bare.root.named_parameters()
    }
    assert not hasattr(model.backbone, "peft_config")
    views = model.anatomy.blocks[2].attention
    assert views.q.module is views.v.module is model.backbone.blocks[2].attn.qkv
    assert (views.q.rows, views.k.rows, views.v.rows) == ((0, 128), (128, 256), (256, 384))
    assert views.inputs[0].module is views.q.module
    assert model.inserted_parameters() == 0


def test_adapter_alone_restores_the_model(method: str) -> None:
    """Onto a fresh backbone, with other random numbers drawn, that has already computed something."""
    model = adapted(method)
    train(model)
    data = safetensors.torch.save(model.adapter_state_dict())
    fresh = adapted(method, seed=77)
    logits(fresh, CASE)
    fresh.load_adapter_state_dict(safetensors.torch.load(data))
    torch.testing.assert_close(logits(fresh, CASE), logits(model, CASE), rtol=0, atol=0)
    assert sum(tensor.numel() for tensor in model.adapter_state_dict().values()) == model.trainable_parameters()


def test_deepcopy_is_independent_and_trains_alike(method: str) -> None:
    model = adapted(method)
    twin = copy.deepcopy(model)
    before = logits(model, CASE)
    torch.testing.assert_close(logits(twin, CASE), before, rtol=0, atol=0)
    train(twin)
    torch.testing.assert_close(logits(model, CASE), before, rtol=0, atol=0)
    train(model)
    torch.testing.assert_close(logits(twin, CASE), logits(model, CASE), rtol=0, atol=0)
    assert {id(p) for p in twin.parameters()}.isdisjoint({id(p) for p in model.parameters()})


def test_state_dict_round_trip(method: str) -> None:
    """Onto a model whose frozen weights were others: PEFT's layers read the backbone's own tensors."""
    model, twin = adapted(method), adapted(method)
    train(model)
    state = model.state_dict()
    with torch.no_grad():
        for parameter in twin.backbone.parameters():
            parameter.add_(0.1)
    twin.load_state_dict(state)
    torch.testing.assert_close(logits(twin, CASE), logits(model, CASE), rtol=0, atol=0)


def test_trains_under_bfloat16_autocast(method: str) -> None:
    model = adapted(method)
    with torch.autocast("cpu", torch.bfloat16):
        output = model.train()(CASE.images())
    output.float().logsumexp(dim=-1).sum().backward()
    assert torch.isfinite(output).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("method", ["peft/lora", "peft/vera", "peft/ln_tuning"])
def test_compiles(method: str) -> None:
    model = adapted(method)
    expected = logits(model, CASE)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, backend="aot_eager")(CASE.images())
    torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-5)


def test_parameter_names_are_the_backbone_s_own_but_for_the_split(method: str) -> None:
    """A fused ``qkv.weight`` is seen as ``qkv.q.weight``, ``qkv.k.weight`` and ``qkv.v.weight``."""
    model = adapted(method)
    own = [name for name, _ in vit().named_parameters()]
    if method != "peft/ln_tuning":
        own = [
            split
            for name in own
            for split in ([name.replace(".qkv.", f".qkv.{p}.") for p in "qkv"] if ".qkv." in name else [name])
        ]
    assert sorted(name for name, _ in model.anatomy.named_parameters()) == sorted(own)
    inserted = sum(p.numel() for name, p in model.named_parameters() if is_inserted(name))
    assert inserted == model.inserted_parameters() >= model.trainable_parameters(include_head=False)


def test_config_is_plain_data_that_makes_the_same_method_again(method: str) -> None:
    config = make_method(method).config()
    read = json.loads(canonical_json(config))
    assert read == config
    assert make_method(method, read).config() == config
    assert config["peft_version"] == peft.__version__
    noise = {"peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"}
    assert noise.isdisjoint(config)
    assert noise.isdisjoint(make_method(method).settings)


@pytest.mark.parametrize("method", ["peft/lora", "peft/ia3", "peft/ln_tuning"])
def test_open_vocabulary(method: str) -> None:
    case = Case(method, "openvocab")
    model, zero_shot = case.model(), Case("zero_shot", "openvocab").model()
    assert torch.equal(logits(model, case), logits(zero_shot, case))
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert names
    assert all(name.startswith("backbone.visual.") and is_inserted(name) for name in names)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    context = Context(epochs=1, steps_per_epoch=2, class_names=CLASS_NAMES)
    for _ in range(2):
        optimizer.zero_grad()
        model.train().method.loss(model, case.images(), labels(), context).backward()
        optimizer.step()
    after = logits(model, case)
    assert not torch.equal(after, logits(zero_shot, case))
    fresh = case.model()
    fresh.load_adapter_state_dict(model.adapter_state_dict())
    assert torch.equal(logits(fresh, case), after)
    model.merge()
    torch.testing.assert_close(logits(model, case), after, rtol=1e-4, atol=1e-4)
    assert model.backbone.state_dict().keys() == case.anatomy().root.state_dict().keys()


def test_video() -> None:
    case = Case("peft/lora", "video")
    model, bare = case.model().eval(), Case("linear", "video").model().eval()
    with torch.no_grad():
        assert torch.equal(model.features(case.images()), bare.features(case.images()))


def test_backbones_without_the_layers_are_unsupported() -> None:
    resnet = find_backbone("test_resnet").build(pretrained=False)
    with pytest.raises(Unsupported, match="test_resnet has no transformer blocks"):
        adapt(resnet, "peft/lora", num_classes=3)
    with pytest.raises(Unsupported, match="test_resnet has no LayerNorm"):
        adapt(resnet, "peft/ln_tuning", num_classes=3)
    with pytest.raises(Unsupported, match=r"peft/c3a: .*block size should be a factor of the input"):
        adapted("peft/c3a", block_size=48)


def test_a_backbone_by_name() -> None:
    model = adapt("vit_tiny_patch16_224", "peft/lora", num_classes=10, pretrained=False, r=4)
    assert model(torch.zeros(2, 3, 224, 224)).shape == (2, 10)
    assert model.trainable_parameters(include_head=False) == 12 * 2 * 4 * (192 + 192)


def test_layer_norms_of_a_hierarchical_backbone() -> None:
    torch.manual_seed(0)
    bare = find_backbone("test_convnext").build(pretrained=False)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = copy.deepcopy(bare).pooled(images)
    model = adapt(bare, "peft/ln_tuning", num_classes=3)
    assert model.trainable_parameters(include_head=False) > 0
    with torch.no_grad():
        assert torch.equal(model.anatomy.pooled(images), expected)


def test_without_peft_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, invoke: Any) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    ask = "needs the extra: pip install peftmark[peft] (make setup EXTRAS=peft)"
    with pytest.raises(PeftmarkError) as error:
        make_method("peft/lora")
    assert str(error.value) == f"method peft/lora {ask}"
    ended = invoke("list", "methods", "peft/*")
    assert (ended.code, ended.one_line()) == (2, f"peftmark: method peft/* {ask}")
    assert invoke("list", "methods").code == 0


def test_listing_and_showing(invoke: Any) -> None:
    rows = json.loads(invoke("list", "methods", "peft/lo*", "--json").out)
    assert [row["name"] for row in rows] == ["peft/loha", "peft/lokr", "peft/lora"]
    assert {row["family"] for row in rows} == {"peft"}
    assert [line.split()[0] for line in invoke("list", "methods", "peft/*").lines] == MEMBERS
    shown = invoke("show", "method", "peft/lora").lines
    assert shown[0] == "peft/lora"
    assert "--set method.lora_alpha=8" in shown
    assert "--set method.targets=['q', 'v']" in shown
    assert "AdaLoRA" in invoke("show", "method", "peft/*").out


def test_a_suite_has_the_bridge_s_methods_where_it_names_them() -> None:
    from peftmark.benchmark.plan.suite import Suite, SuiteRuns

    block = SuiteRuns(
        backbone="embedded/vit", tasks=["embedded/digits"], methods=["*", "peft/lo*"], exclude=["peft/lokr"]
    )
    methods = [method for *_, method, _ in Suite(description="", protocol="embedded-v1", runs=[block]).pairs()]
    assert [method for method in methods if method.startswith("peft/")] == ["peft/loha", "peft/lora"]
    assert "lora" in methods


def test_a_run_of_the_bridge(toy_plugin: Any, checkpoint: Any, tmp_path: Any) -> None:
    """From the request to the record and the method's card; where the backbone lacks blocks the record says so."""
    from peftmark.benchmark.launch.cards import write_pair_cards
    from peftmark.benchmark.plan.runs import Request, plan
    from peftmark.benchmark.run.run import run
    from peftmark.results.cards import read_cards

    planned = plan(
        Request(
            methods=["peft/adal*"],
            tasks=["toy/bright"],
            backbones=[f"embedded/vit@{checkpoint}", "toy/pixels"],
            method_settings={"init_r": 3, "target_r": 1},
            protocol_settings={"epochs": 2},
        )
    )
    records = [run(spec, torch.device("cpu"), planned.checkpoints.get(spec.backbone.weights)) for spec in planned.specs]
    assert [record.status for record in records] == ["ok", "unsupported"]
    assert records[1].error.message == "toy/pixels has no transformer blocks, nor others whose parts are known"
    assert records[0].spec.method.config["init_r"] == 3
    assert records[0].spec.method.config["peft_version"] == peft.__version__
    assert records[0].params.added_at_inference == 0
    assert records[0].params.trainable_without_head == 6 * 2 * (3 * 128 + 3 + 3 * 128)
    write_pair_cards(tmp_path, planned.specs[0].method.name, planned.specs[0].backbone.name)
    card = read_cards(tmp_path, "methods")["peft/adalora"]
    assert card.facts["defaults"]["init_r"] == 12
