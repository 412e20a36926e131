"""The settings of Hugging Face PEFT's tuners, and what the bridge refuses in one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from bridged import adapted, train, vit
from invariants import CLASS_NAMES
from torch import nn

from peftmark.adapting import adapt
from peftmark.backbones.anatomy.split_linear import SplitLinear
from peftmark.errors import NotMergeable, PeftmarkError
from peftmark.methods import make_method
from peftmark.results import canonical_json

peft = pytest.importorskip("peft")


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
