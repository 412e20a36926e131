"""Hugging Face PEFT's tuners, through the bridge: every one that can adapt an image backbone, and our own beside it."""

from __future__ import annotations

import copy
import json
import sys
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from invariants import CLASS_NAMES, Case, labels, logits, train_a_little
from torch import nn
from torch.nn import functional as F

from peftmark import METHODS
from peftmark.backbones import Anatomy, find_backbone
from peftmark.backbones.slots import is_inserted
from peftmark.backbones.split_linear import SplitLinear
from peftmark.errors import NotMergeable, PeftmarkError, Unsupported
from peftmark.methods import AdaptedModel, Context, adapt, make_method
from peftmark.methods.bridge import hf_peft
from peftmark.results import canonical_json

peft = pytest.importorskip("peft")
MEMBERS = METHODS.expand("peft/*")
CASE = Case("peft/lora", "image")
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


def vit() -> Anatomy:
    """A random embedded ViT whose biases and norms are not zeros and ones, always the same."""
    anatomy = CASE.anatomy()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in anatomy.root.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return anatomy


def adapted(method: str, seed: int = 1, **config: Any) -> AdaptedModel:
    anatomy = vit()
    torch.manual_seed(seed)
    return adapt(anatomy, method, num_classes=len(CLASS_NAMES), **config)


def features(model: AdaptedModel | Anatomy) -> torch.Tensor:
    anatomy = model.anatomy if isinstance(model, AdaptedModel) else model
    anatomy.root.eval()
    with torch.no_grad():
        return anatomy.pooled(CASE.images())


def train(model: AdaptedModel, steps: int = 3, total: int | None = None) -> dict[str, bool]:
    """A few AdamW steps with decay, of `total`; which trainable tensors ever had a gradient that is not zero."""
    torch.manual_seed(0)
    return train_a_little(model, CASE, steps, total)


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
    if method.removeprefix("peft/") in hf_peft.NOT_MERGEABLE:
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


# -- native and bridge ----------------------------------------------------------------------------------------------

ALL = ["q", "k", "v", "proj", "fc1", "fc2"]
Pairs = list[tuple[torch.Tensor, torch.Tensor]]


def lora_pairs(ours: list[nn.Module], theirs: list[nn.Module]) -> Pairs:
    pairs = [(o.down, t.lora_A["default"].weight) for o, t in zip(ours, theirs, strict=True)]
    return pairs + [(o.up, t.lora_B["default"].weight) for o, t in zip(ours, theirs, strict=True)]


def dora_pairs(ours: list[nn.Module], theirs: list[nn.Module]) -> Pairs:
    magnitudes = [
        (o.magnitude, t.lora_magnitude_vector["default"].weight) for o, t in zip(ours[1::2], theirs, strict=True)
    ]
    return lora_pairs(ours[::2], theirs) + magnitudes


def vera_pairs(ours: list[nn.Module], theirs: list[nn.Module]) -> Pairs:
    pairs = [(o.d, t.vera_lambda_d["default"]) for o, t in zip(ours, theirs, strict=True)]
    pairs += [(o.b, t.vera_lambda_b["default"]) for o, t in zip(ours, theirs, strict=True)]
    frozen = ours[0].projections
    return [*pairs, (frozen.down, theirs[0].vera_A["default"]), (frozen.up, theirs[0].vera_B["default"])]


def ia3_pairs(ours: list[nn.Module], theirs: list[nn.Module]) -> Pairs:
    return [(o.scale, t.ia3_l["default"]) for o, t in zip(ours, theirs, strict=True)]


NATIVE = {
    "lora": (
        {"rank": 4, "alpha": 6.0, "targets": ALL},
        "peft/lora",
        {"r": 4, "lora_alpha": 6, "targets": ALL},
        lora_pairs,
    ),
    "dora": (
        {"rank": 4, "alpha": 6.0, "targets": ALL},
        "peft/lora",
        {"r": 4, "lora_alpha": 6, "targets": ALL, "use_dora": True},
        dora_pairs,
    ),
    "vera": ({"rank": 16, "targets": ALL}, "peft/vera", {"r": 16, "targets": ALL}, vera_pairs),
    "ia3": ({}, "peft/ia3", {}, ia3_pairs),
}


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize("name", NATIVE)
def test_native_equals_bridge(name: str, dtype: torch.dtype, close: float) -> None:
    """From the same weights, far from their start: logits, every gradient, and the weights that a merge leaves."""
    config, their_name, their_config, pairs_of = NATIVE[name]
    ours, theirs = adapted(name, **config).to(dtype), adapted(their_name, **their_config).to(dtype)
    pairs = pairs_of([i.insert for i in ours.anatomy.log], [i.insert.layer for i in theirs.anatomy.log])
    generator = torch.Generator().manual_seed(3)
    pairs += zip(ours.head.parameters(), theirs.head.parameters(), strict=True)
    with torch.no_grad():
        for our, their in pairs:
            our.add_(torch.randn(our.shape, generator=generator).to(dtype) * 0.2)
            their.copy_(our.view(their.shape))
    assert ours.trainable_parameters() == theirs.trainable_parameters()
    outputs, images = [], []
    for model in (ours, theirs):
        images.append(CASE.images().to(dtype).requires_grad_())
        outputs.append(model(images[-1]))
        F.cross_entropy(outputs[-1], labels()).backward()
    bare = vit().pooled(CASE.images())
    assert (ours.anatomy.pooled(images[0]) - bare).abs().max() > 0.05
    torch.testing.assert_close(outputs[1], outputs[0], rtol=close, atol=close)
    torch.testing.assert_close(images[1].grad, images[0].grad, rtol=close, atol=close)
    trained = [(our, their) for our, their in pairs if our.requires_grad]
    assert sum(our.numel() for our, _ in trained) == ours.trainable_parameters()
    for our, their in trained:
        assert our.grad.abs().max() > 0
        torch.testing.assert_close(their.grad.view(our.shape), our.grad, rtol=close, atol=close)
    ours.merge()
    theirs.merge()
    for (our_name, our), (their_name, their) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert our_name == their_name
        torch.testing.assert_close(their, our, rtol=close, atol=close)


# -- tuners that do something every step ----------------------------------------------------------------------------


def test_adalora_allocates_ranks_over_the_steps_of_the_protocol() -> None:
    model = adapted("peft/adalora", init_r=4, target_r=2, tinit=1, tfinal=2)
    layers = [insertion.insert.layer for insertion in model.anatomy.log]

    def ranks() -> list[int]:
        return [int((layer.lora_E["default"] != 0).sum()) for layer in layers]

    assert len(layers) == 12
    train(model, steps=1, total=8)
    assert ranks() == [4] * 12  # tinit: none is pruned yet
    model = adapted("peft/adalora", init_r=4, target_r=2, tinit=1, tfinal=2)
    layers = [insertion.insert.layer for insertion in model.anatomy.log]
    train(model, steps=4, total=8)
    assert 24 < sum(ranks()) < 48
    model = adapted("peft/adalora", init_r=4, target_r=2, tinit=1, tfinal=2)
    layers = [insertion.insert.layer for insertion in model.anatomy.log]
    train(model, steps=8)
    assert sum(ranks()) == 2 * 12  # the last two steps moved the others, and their zeros are still zeros
    assert len(set(ranks())) > 1
    assert model.anatomy.log[0].insert.tuner.peft_config["default"].total_step == 8
    assert "total_step" not in model.method.config()


def test_adalora_s_loss_has_peft_s_regulariser() -> None:
    """`AdaLoraModel.forward` adds it to the loss of the model that it wraps."""
    model = adapted("peft/adalora", orth_reg_weight=0.7)
    context = Context(epochs=1, steps_per_epoch=1, class_names=CLASS_NAMES)
    extra = model.method.loss(model, CASE.images(), labels(), context) - F.cross_entropy(model(CASE.images()), labels())
    tuner = model.anatomy.log[0].insert.tuner
    tuner.model.forward = lambda: SimpleNamespace(loss=torch.zeros(()))
    theirs = tuner.forward().loss
    assert theirs > 0.1
    torch.testing.assert_close(extra, theirs, rtol=1e-5, atol=1e-5)


def test_adalora_needs_steps_for_its_schedule() -> None:
    with pytest.raises(PeftmarkError, match="peft/adalora: tinit \\+ tfinal must be less than the run's 3 steps"):
        train(adapted("peft/adalora", tinit=1, tfinal=2))


def test_adamss_saves_what_it_trained_and_froze_again() -> None:
    config = {"use_asa": True, "init_warmup": 1, "final_warmup": 4, "mask_interval": 1, "asa_target_subspaces": 3}
    model = adapted("peft/adamss", **config)
    count = model.trainable_parameters()
    train(model, steps=3, total=4)
    assert model.trainable_parameters() < count
    model = adapted("peft/adamss", **config)
    train(model, steps=4)
    assert model.trainable_parameters() == count
    fresh = adapted("peft/adamss", **config)
    fresh.load_adapter_state_dict(model.adapter_state_dict())
    assert torch.equal(logits(fresh, CASE), logits(model, CASE))


@pytest.mark.parametrize(
    ("config", "name"),
    [({"kasa_config": {"beta": 10.0}}, "_get_kasa_loss"), ({"monteclora_config": {}}, "_get_monteclora_loss")],
)
def test_lora_s_variants_have_their_regularisers(config: dict[str, Any], name: str) -> None:
    model = adapted("peft/lora", **config).train()
    context = Context(epochs=1, steps_per_epoch=1, class_names=CLASS_NAMES)
    loss = model.method.loss(model, CASE.images(), labels(), context)
    extra = getattr(model.anatomy.log[0].insert.tuner, name)()  # of this forward's samples
    plain = F.cross_entropy(model(CASE.images()), labels())  # B is zero still: samples do not matter
    assert extra.abs() > 1e-4
    torch.testing.assert_close(loss, plain + extra, rtol=1e-4, atol=1e-6)


# -- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "config", "message"),
    [
        ("peft/lroa", {}, "unknown method 'peft/lroa': did you mean peft/road, peft/lora, peft/loha?"),
        ("peft/zzzz", {}, "unknown method 'peft/zzzz': see `peftmark list methods 'peft/*'`"),
        ("peft/lora", {"lora_alph": 3}, "method 'peft/lora' has no hyper-parameter 'lora_alph': "
                                        "did you mean lora_alpha?"),
        ("peft/lora", {"r": "many"}, "method 'peft/lora': r='many' is not valid: Expected `int`, got `str`"),
        ("peft/lora", {"bias": "some"}, "method 'peft/lora': bias='some' is not valid: Invalid enum value 'some'"),
        ("peft/lora", {"targets": ["qkv"]}, "method 'peft/lora': targets=['qkv'] is not valid: "
                                            "Invalid enum value 'qkv' - at `$[0]`"),
        ("peft/lora", {"targets": []}, "method 'peft/lora': targets must name a projection"),
        ("peft/lora", {"target_modules": ["q"]}, "method 'peft/lora': target_modules cannot be set: "
                                                 "which layers change is said by targets (q, k, v, proj, fc1, fc2)"),
        ("peft/lora", {"total_step": 9}, "method 'peft/lora' has no hyper-parameter 'total_step': "
                                         "it has alpha_pattern, bias, "),
        ("peft/adalora", {"total_step": 9}, "method 'peft/adalora': total_step cannot be set: "
                                            "it is the number of steps that the protocol gives"),
        ("peft/lora", {"init_lora_weights": "eva"}, "method 'peft/lora': init_lora_weights='eva' cannot be set: "
                                                    "it starts an adapter from statistics of data"),
        ("peft/oft", {"r": 4}, "method 'peft/oft': You can only specify either r (4) or oft_block_size (32)"),
        ("peft/lora", {"peft_version": "0.1"}, f"method 'peft/lora' was run with peft 0.1; installed is "
                                               f"{peft.__version__}"),
        ("peft/ln_tuning", {"targets": ["q"]}, "method 'peft/ln_tuning' has no hyper-parameter 'targets': it has none"),
    ],
)  # fmt: skip
def test_what_cannot_be_set_is_one_line(method: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(PeftmarkError) as error:
        make_method(method, config)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_settings_reach_peft() -> None:
    model = adapted("peft/lora", r=3, lora_alpha="12", targets=["fc1", "k"], rank_pattern={"mlp.fc1": 5})
    ranks = {
        name.split(".slots")[0]: insertion.insert.layer.r["default"]
        for name, insertion in zip(
            [n for n, m in model.anatomy.model.named_modules() if n.endswith("slots.instead.layer")],
            sorted(
                model.anatomy.log, key=lambda i: [m is i.host.module for m in model.anatomy.model.modules()].index(True)
            ),
            strict=True,
        )
    }
    assert ranks == {f"blocks.{i}.{n}": r for i in range(6) for n, r in (("attn.qkv.k", 3), ("mlp.fc1", 5))}
    assert model.anatomy.log[0].insert.layer.scaling["default"] == 12 / 5
    config = model.method.config()
    assert (config["r"], config["lora_alpha"], config["targets"]) == (3, 12, ["fc1", "k"])
    assert config["rank_pattern"] == {"mlp.fc1": 5}


def test_nested_settings_and_enums_are_plain_data() -> None:
    config = make_method("peft/lora", {"kasa_config": {"beta": 0.5}}).config()
    assert config["kasa_config"] == {"beta": 0.5, "gamma": 0.001}
    assert make_method("peft/lora", json.loads(canonical_json(config))).config() == config
    assert make_method("peft/road", {"variant": "road_4"}).config()["variant"] == "road_4"


def test_a_method_is_made_anew_for_every_model() -> None:
    """PEFT may write into its config, as AdaLoRA does: that must not reach the method's hyper-parameters."""
    method = make_method("peft/adalora", {"init_r": 4, "target_r": 2})
    before = method.config()
    for _ in range(2):
        train(adapt(vit(), method, num_classes=len(CLASS_NAMES)))
    assert method.config() == before
    method = make_method("peft/lora")
    model = adapt(vit(), method, num_classes=3)
    model.anatomy.log[0].insert.tuner.peft_config["default"].alpha_pattern["mlp"] = 1
    assert method.config()["alpha_pattern"] == {}


def test_ia3_and_ln_tuning_change_what_their_papers_say() -> None:
    block = adapted("peft/ia3").backbone.blocks[0]
    layers = [m.slots["instead"].layer for m in (block.attn.qkv.k, block.attn.qkv.v, block.mlp.fc2)]
    assert [layer.is_feedforward for layer in layers] == [False, False, True]
    model = adapted("peft/ln_tuning")
    assert model.trainable_parameters(include_head=False) == sum(
        p.numel() for m in vit().root.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()
    )
    assert not [m for m in model.backbone.modules() if isinstance(m, SplitLinear)]


@pytest.mark.parametrize(
    ("method", "config", "reason"),
    [
        ("peft/beft", {}, "BeftModel cannot be folded into weights: it adds to a bias, and a layer here has none"),
        ("peft/lora", {"lora_bias": True}, "LoraModel cannot be folded into weights: it adds to a bias"),
        ("peft/pvera", {"sample_at_inference": True}, "PveraModel cannot be folded into weights: it draws random"),
    ],
)
def test_what_cannot_be_folded_says_so_before_anything_is(method: str, config: dict[str, Any], reason: str) -> None:
    anatomy = vit()
    for block in anatomy.root.blocks:
        block.attn.qkv.bias = None
    model = adapt(anatomy, method, num_classes=3, targets=["proj", "q"], **config)
    assert not model.anatomy.mergeable
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(NotMergeable, match=reason):
        model.merge()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# -- backbones ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["peft/lora", "peft/ia3", "peft/ln_tuning"])
def test_open_vocabulary(method: str) -> None:
    case = Case(method, "open_vocabulary")
    model, zero_shot = case.model(), Case("zero_shot", "open_vocabulary").model()
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


# -- the house ------------------------------------------------------------------------------------------------------


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
    from peftmark.benchmark.suite import Block, Suite

    block = Block(backbone="embedded/vit", tasks=["embedded/digits"], methods=["*", "peft/lo*"], exclude=["peft/lokr"])
    methods = [method for *_, method, _ in Suite(description="", protocol="embedded-v1", runs=[block]).pairs()]
    assert [method for method in methods if method.startswith("peft/")] == ["peft/loha", "peft/lora"]
    assert "lora" in methods


def test_a_run_of_the_bridge(toy_plugin: Any, checkpoint: Any, tmp_path: Any) -> None:
    """From the request to the record and the method's card; where the backbone lacks blocks the record says so."""
    from peftmark.benchmark.describe import describe_pair
    from peftmark.benchmark.plan import Request, plan
    from peftmark.benchmark.run import run
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
    describe_pair(tmp_path, planned.specs[0].method.name, planned.specs[0].backbone.name)
    card = read_cards(tmp_path, "methods")["peft/adalora"]
    assert card.facts["defaults"]["init_r"] == 12
