"""CoOp's prompts are what they stand for."""

from __future__ import annotations

import pytest
import torch
from invariants import CLASS_NAMES, Case, logits

from peftmark.adapting import adapt
from peftmark.errors import PeftmarkError
from peftmark.methods import AdaptedModel

CASE = Case("coop", "openvocab")


def coop(**config: object) -> AdaptedModel:
    torch.manual_seed(3)
    return adapt(CASE.anatomy(), "coop", class_names=CLASS_NAMES, **config)


def test_words_of_a_template_give_its_zero_shot_logits() -> None:
    zero_shot = adapt(CASE.anatomy(), "zero_shot", class_names=CLASS_NAMES, templates=["a photo of a {}."])
    torch.testing.assert_close(
        logits(coop(init_words="a photo of a"), CASE), logits(zero_shot, CASE), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(("position", "template"), [("front", "{} a photo of."), ("middle", "a photo {} of.")])
def test_class_name_in_front_and_in_the_middle(position: str, template: str) -> None:
    """Moving the name moves it among the context's tokens, and nowhere else."""
    model = coop(init_words="a photo of", class_token_position=position)
    prompt = model.text.prompt
    embedded, ids = prompt()
    before = prompt.n_ctx // 2 if position == "middle" else 0
    for row, name, length in zip(embedded, CLASS_NAMES, prompt.name_lengths, strict=True):
        name_ids = model.text.tokenize([name])[0, 1 : 1 + length]
        torch.testing.assert_close(row[1 + before : 1 + before + length], model.text.embed(name_ids))
        torch.testing.assert_close(row[1 : 1 + before], prompt.context[:before])
        rest = row[1 + before + length : 1 + prompt.n_ctx + length]
        torch.testing.assert_close(rest, prompt.context[before:])
    assert torch.equal(model.text.lengths(ids), torch.tensor([n + prompt.n_ctx + 3 for n in prompt.name_lengths]))
    if "." in template:
        assert embedded.shape[:2] == ids.shape


def test_class_specific_contexts_are_one_a_class() -> None:
    model = coop(class_specific=True)
    assert model.text.prompt.context.shape == (len(CLASS_NAMES), 16, model.text.width)
    with pytest.raises(PeftmarkError, match="class_specific=False"):
        model.set_class_names(("one", "two"))


def test_a_context_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(PeftmarkError, match="leaves no room"):
        coop(n_ctx=31)


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "non-empty"), (["a", ""], "non-empty"), (["dog", "cat", "dog"], "'dog' stands there twice")],
)
def test_bad_class_names(names: list[str], message: str) -> None:
    with pytest.raises(PeftmarkError, match=message):
        adapt(CASE.anatomy(), "coop", class_names=names)


def test_template_ensemble_is_the_mean_of_normalised_features() -> None:
    templates = ["a photo of a {}.", "a drawing of a {}."]
    anatomy = CASE.anatomy()
    text = anatomy.text_tower()
    with torch.no_grad():
        both = text.ensemble(CLASS_NAMES, templates)
        single = [text.ensemble(CLASS_NAMES, [template]) for template in templates]
    mean = (single[0] + single[1]) / 2
    torch.testing.assert_close(both, mean / mean.norm(dim=-1, keepdim=True))
    with pytest.raises(PeftmarkError, match=r"\{\}"):
        text.ensemble(CLASS_NAMES, ["a photo"])


def test_underscores_in_class_names_are_spaces() -> None:
    model = adapt(CASE.anatomy(), "zero_shot", class_names=["red_apple", "dog"])
    plain = adapt(CASE.anatomy(), "zero_shot", class_names=["red apple", "dog"])
    assert torch.equal(logits(model, CASE), logits(plain, CASE))
