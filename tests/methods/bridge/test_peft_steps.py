"""Tuners of Hugging Face PEFT that do something every step, or add to the loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bridged import CASE, adapted, train
from invariants import CLASS_NAMES, labels, logits
from torch.nn import functional as F

from peftmark.errors import PeftmarkError
from peftmark.methods import Context

peft = pytest.importorskip("peft")


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
