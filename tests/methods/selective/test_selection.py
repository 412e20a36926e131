"""Scoring methods tell their scores and their choice, and take a given one."""

from __future__ import annotations

import pytest
import torch
from invariants import Case
from scored import SCORING, data, image_case, observer, own_gradients, prepared
from torch.nn import functional as F

from peftmark.adapting import adapt
from peftmark.errors import PeftmarkError, Unsupported
from peftmark.methods import AdaptedModel, ScoringMethod, make_method


def adapted(case: Case, **arguments: object) -> AdaptedModel:
    anatomy = case.anatomy()
    torch.manual_seed(1)
    return adapt(anatomy, case.method, num_classes=5, **arguments)


@pytest.mark.parametrize("method", sorted({case.method for case in SCORING}))
def test_a_choice_that_is_given_is_the_one_that_was_made(method: str) -> None:
    """The same entries, and modules, train; without any data."""
    case = image_case(method)
    model = adapted(case, batches=data(case))
    given = {name: mask.clone() for name, mask in model.selection.items()}
    own = dict(model.anatomy.named_parameters())
    assert sum(int(mask.sum()) for mask in given.values()) > 0
    assert all(mask.dtype == torch.bool and mask.shape == own[name].shape for name, mask in given.items())
    again = adapted(case, selection=given)
    assert again.training
    assert again.scores == {}
    trained = [[name for name, p in each.named_parameters() if p.requires_grad] for each in (model, again)]
    assert trained[0] == trained[1]
    assert model.trainable_parameters() == again.trainable_parameters()
    for kind in ("entry_masks", "selection"):
        of_model, of_again = (getattr(each, kind) for each in (model, again))
        of_model, of_again = (found() if callable(found) else found for found in (of_model, of_again))
        assert of_model.keys() == of_again.keys()
        assert all(torch.equal(mask, of_again[name]) for name, mask in of_model.items())
    for mask in given.values():
        mask.fill_(False)
    assert again.trainable_parameters() == model.trainable_parameters()  # it has a copy


@pytest.mark.parametrize("method", sorted({case.method for case in SCORING}))
def test_scores_are_told(method: str) -> None:
    """Of the parameters' shapes; what is chosen scores higher than what is not."""
    case = image_case(method)
    model = adapted(case, batches=data(case))
    assert isinstance(model.method, ScoringMethod)
    own = dict(model.anatomy.named_parameters())
    assert len(model.scores) > 10
    assert all(score.shape == own[name].shape and score.is_floating_point() for name, score in model.scores.items())
    assert all(not score.requires_grad and bool((score >= 0).all()) for score in model.scores.values())
    chosen = model.method.choose(model, model.scores)
    marked = model.selection if method == "spt" else chosen
    if method != "spt":
        assert all(torch.equal(mask, chosen[name]) for name, mask in marked.items())
    if method in ("fish_mask", "magnitude_mask", "diff_pruning"):
        scores = torch.cat([score.flatten() for score in model.scores.values()])
        mask = torch.cat([marked.get(n, torch.zeros(s.shape).bool()).flatten() for n, s in model.scores.items()])
        assert scores[mask].min() >= scores[~mask].max()
    assert prepared(case).scores == {}  # a run does not hold them


def test_scores_of_fish_are_squared_gradients() -> None:
    case = image_case("fish_mask")
    model, sums = observer(case), {}
    for images, truth in data(case):
        for image, label in zip(images.split(1), truth.split(1), strict=True):
            for name, gradient in own_gradients(model, F.cross_entropy(model(image), label)).items():
                sums[name] = sums.get(name, 0) + gradient**2
    scores = adapted(case, batches=data(case)).scores
    assert scores.keys() == sums.keys()
    for name, score in scores.items():
        torch.testing.assert_close(score, sums[name], atol=1e-9, rtol=1e-3)


def test_a_choice_by_hand() -> None:
    case = image_case("fish_mask")
    mask = torch.zeros(128, dtype=torch.bool)
    mask[3] = True
    model = adapted(case, selection={"blocks.0.norm1.weight": mask})
    assert model.trainable_parameters(include_head=False) == 1
    assert list(model.selection) == ["blocks.0.norm1.weight"]
    matrix = torch.zeros(128, 128, dtype=torch.bool)
    matrix[:, :20] = True
    model = adapted(image_case("spt"), selection={"blocks.1.attn.proj.weight": matrix})
    assert [name for name, p in model.named_parameters() if p.requires_grad and "slots" in name] == [
        f"backbone.blocks.1.attn.proj.slots.rows.0.delta.0.{factor}" for factor in ("down", "up")
    ]
    assert model.selection["blocks.1.attn.proj.weight"].all()  # a module changes the whole of it
    assert model.selection.keys() == {"blocks.1.attn.proj.weight"}


def test_other_methods_tell_nothing() -> None:
    model = adapted(image_case("lora"))
    assert (model.selection, model.scores) == ({}, {})


def test_mistakes() -> None:
    case, mask = image_case("fish_mask"), torch.ones(128, dtype=torch.bool)

    def refuse(message: str, method: str = "fish_mask", **arguments: object) -> None:
        with pytest.raises(PeftmarkError, match=message) as error:
            adapt(case.anatomy(), method, num_classes=5, **arguments)
        assert "\n" not in str(error.value)

    near = r"has no parameter 'blocks.0.norm1.wait': did you mean blocks.0.norm1.weight\?"
    refuse(near, selection={"blocks.0.norm1.wait": mask})
    refuse("has no parameter 'x': names are those of model.anatomy.named_parameters", selection={"x": mask})
    shape = r"'norm.weight' is torch.bool of shape \(3,\): give a bool mask of shape \(128,\)"
    refuse(shape, selection={"norm.weight": mask[:3]})
    refuse("'norm.weight' is torch.float32 of shape", selection={"norm.weight": mask.float()})
    refuse("LoRA does not choose among parameters", "lora", selection={"norm.weight": mask})
    refuse("not both", selection={"norm.weight": mask}, batches=data(case))
    refuse("FishMask scores parameters on data: give batches=.* or selection=")
    refuse("spt chooses among blocks and norms, of which 'pos_embed' is none", "spt", selection={
        "pos_embed": torch.ones(1, 26, 128, dtype=torch.bool)
    })  # fmt: skip
    with pytest.raises(Unsupported, match="has no parameter entry that this method would train"):
        adapt(case.anatomy(), make_method("fish_mask"), num_classes=5, selection={"norm.weight": ~mask})
