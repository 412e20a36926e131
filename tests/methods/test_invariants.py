"""What every method must satisfy, over the whole registry: a new method is tested by being registered."""

from __future__ import annotations

import copy
from fnmatch import fnmatchcase

import pytest
import safetensors.torch
import torch
from invariants import CLASS_NAMES, Case, bare_features, features, logits, train_a_little
from torch import nn

from peftmark import METHODS
from peftmark.adapting import adapt
from peftmark.backbones.anatomy.slots import is_inserted
from peftmark.errors import NotMergeable, PeftmarkError, Unsupported
from peftmark.methods import AdaptedModel


def test_starts_as_the_bare_backbone(case: Case) -> None:
    """Also where a class says that it does not: then it must really not."""
    model = case.model()
    images, text = features(model, case), model.anatomy.text
    same = torch.equal(images, bare_features(case))
    if text is not None:
        same = same and torch.equal(logits(model, case), logits(Case("zero_shot", case.track).model(), case))
    assert same == METHODS[case.method].identity_at_start


def test_every_trainable_tensor_gets_a_gradient(case: Case) -> None:
    """Unless the method says that the loss does not depend on it, and why."""
    model = case.model()
    moved = train_a_little(model, case)
    allowed = model.method.unreached(model.anatomy) or ""
    assert [name for name, had_gradient in moved.items() if not (had_gradient or fnmatchcase(name, allowed))] == []


def test_frozen_tensors_stay_bit_identical(case: Case) -> None:
    """Single entries of a partly trained tensor too, under weight decay and momentum."""
    model = case.model()
    masks = model.entry_masks()
    trained = set(model.adapter_state_dict())  # with the running statistics of norms that train
    before = {name: value.clone() for name, value in model.state_dict().items() if name not in trained}
    train_a_little(model, case)
    after = model.state_dict()
    for name, value in before.items():
        if name in masks:
            assert torch.equal(value[~masks[name]], after[name][~masks[name]])
            assert not torch.equal(value[masks[name]], after[name][masks[name]])
        else:
            assert torch.equal(value, after[name]), name


def test_training_changes_the_logits(case: Case) -> None:
    model = case.model()
    before = logits(model, case)
    trainable = bool(train_a_little(model, case))
    assert torch.equal(before, logits(model, case)) != trainable


def test_merge_keeps_the_logits_and_the_backbone_s_structure(case: Case) -> None:
    model = case.model()
    train_a_little(model, case)
    before = logits(model, case)
    if not model.anatomy.mergeable:
        with pytest.raises(NotMergeable):
            model.merge()
        torch.testing.assert_close(logits(model, case), before, rtol=0, atol=0)
        return
    model.merge()
    torch.testing.assert_close(logits(model, case), before, rtol=1e-4, atol=1e-5)
    bare = case.anatomy().root
    assert [(n, type(m)) for n, m in model.backbone.named_modules()] == [(n, type(m)) for n, m in bare.named_modules()]
    assert {n: p.shape for n, p in model.backbone.named_parameters()} == {
        n: p.shape for n, p in bare.named_parameters()
    }


def test_adapter_alone_restores_the_model(case: Case) -> None:
    """Through bytes of a safetensors file, onto a fresh backbone."""
    model = case.model()
    train_a_little(model, case)
    data = safetensors.torch.save(model.adapter_state_dict())
    fresh = case.model()
    fresh.load_adapter_state_dict(safetensors.torch.load(data))
    torch.testing.assert_close(logits(fresh, case), logits(model, case), rtol=0, atol=0)
    not_counted = {name for name, _ in model.named_buffers()}
    values = [
        tensor
        for name, tensor in model.adapter_state_dict().items()
        if name not in not_counted and not name.endswith("::indices")
    ]
    assert sum(tensor.numel() for tensor in values) == model.trainable_parameters()


def test_adapter_of_another_shape_is_refused_whole(case: Case) -> None:
    model = case.model()
    state = model.adapter_state_dict()
    if not state:
        pytest.skip(f"{case.method} trains nothing")
    name = next(iter(state))
    before = logits(model, case)
    with pytest.raises(PeftmarkError, match="does not fit"):
        model.load_adapter_state_dict({**state, name: torch.zeros(1, 2, 3)})
    torch.testing.assert_close(logits(model, case), before, rtol=0, atol=0)


def test_deepcopy_is_independent_and_equal(case: Case) -> None:
    model = case.model()
    twin = copy.deepcopy(model)
    torch.testing.assert_close(logits(twin, case), logits(model, case), rtol=0, atol=0)
    before = logits(model, case)
    train_a_little(twin, case)
    torch.testing.assert_close(logits(model, case), before, rtol=0, atol=0)
    assert {id(p) for p in twin.parameters()}.isdisjoint({id(p) for p in model.parameters()})


def test_state_dict_round_trip(case: Case) -> None:
    model, twin = case.model(), case.model()
    train_a_little(model, case)
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(logits(twin, case), logits(model, case), rtol=0, atol=0)


def test_compiles(case: Case) -> None:
    """Once a method: the tracks differ in what is around the adapted backbone, and compiling takes seconds."""
    if case.track != METHODS.entry(case.method).metadata["tracks"][0]:
        pytest.skip("compiled on the method's first track")
    model = case.model()
    expected = logits(model, case)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(case.images()), expected, rtol=1e-4, atol=1e-5)


def test_trains_under_bfloat16_autocast(case: Case) -> None:
    model = case.model()
    with torch.autocast("cpu", torch.bfloat16):
        output = model.train()(case.images())
    assert torch.isfinite(output).all()
    if model.trainable_parameters():
        output.float().logsumexp(dim=-1).sum().backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_parameter_names_are_the_backbone_s_own(case: Case) -> None:
    model = case.model()
    seen = [name for name, _ in model.anatomy.named_parameters()]
    assert seen == [name for name, _ in case.anatomy().named_parameters()]
    inserted = sum(p.numel() for name, p in model.named_parameters() if is_inserted(name))
    assert inserted == model.inserted_parameters()


def test_class_names_can_change(case: Case) -> None:
    if case.track != "openvocab":
        pytest.skip("a linear head has fixed classes")
    model = case.model()
    if case.method == "linear_probe":
        with pytest.raises(Unsupported, match="5 classes"):
            model.set_class_names(("cat", *CLASS_NAMES))
        return
    model.set_class_names(("cat", *CLASS_NAMES))
    assert logits(model, case).shape == (6, 6)
    first = logits(case.model(), case)
    torch.testing.assert_close(logits(model, case)[:, 1:], first, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [m for m in METHODS.expand("*") if "image" in METHODS.entry(m).metadata["tracks"]])
def test_frozen_batch_norm_keeps_its_statistics(method: str) -> None:
    """On a convolutional backbone; methods that need tokens say so instead."""
    torch.manual_seed(0)
    try:
        data = [(torch.randn(4, 3, 96, 96), torch.tensor([0, 1, 2, 0]))]
        model: AdaptedModel = adapt("test_resnet", method, num_classes=3, pretrained=False, batches=data)
    except PeftmarkError as error:
        assert "test_resnet" in str(error)  # noqa: PT017
        return
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    frozen = [n for n in norms if not any(p.requires_grad for p in n.parameters())]
    assert norms
    before = [norm.running_mean.clone() for norm in norms]
    model.train()(torch.randn(4, 3, 96, 96))
    for norm, mean in zip(norms, before, strict=True):
        assert torch.equal(norm.running_mean, mean) == (norm in frozen)
