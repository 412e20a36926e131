"""What the objectives say of outputs and targets, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from peftmark.errors import Unsupported
from peftmark.tasks import Accuracy, Classification, Objective, OpenVocabulary, Split, objective_of_track

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 3.0]])
LABELS = torch.tensor([0, 1])


def test_a_label_s_predictions() -> None:
    found = Classification(3).decode(LOGITS, LABELS)
    assert found["predicted"].tolist() == [0, 2]
    assert found["target"].tolist() == [0, 1]
    first = math.e**2 / (math.e**2 + 2)
    second = torch.tensor([math.e, math.e**3]) / (1 + math.e + math.e**3)
    assert found["probability_true"].tolist() == pytest.approx([first, second[0].item()])
    assert found["probability_max"].tolist() == pytest.approx([first, second[1].item()])


def test_predictions_of_half_precision_are_probabilities_of_single() -> None:
    """bfloat16 would round .9999 up to 1."""
    found = Classification(2).decode(torch.tensor([[9.0, 0.0]]).bfloat16(), torch.tensor([0]))
    assert found["probability_true"].dtype == torch.float32
    assert found["probability_true"].item() == pytest.approx(1 / (1 + math.exp(-9)), abs=1e-7)


def test_the_loss_is_the_mean_cross_entropy() -> None:
    by_hand = -(math.log(math.e**2 / (math.e**2 + 2)) + math.log(math.e / (1 + math.e + math.e**3))) / 2
    assert Classification(3).loss(LOGITS, LABELS).item() == pytest.approx(by_hand)
    assert OpenVocabulary("abc", ["{}"]).loss(LOGITS, LABELS).item() == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("predicted", "value"), [([0, 1, 2, 2], 100.0), ([0, 1, 2, 0], 75.0), ([1, 2, 0, 1], 0.0), ([0, 0, 0, 0], 25.0)]
)
def test_accuracy_is_percent_over_all_batches(predicted: list[int], value: float) -> None:
    metric = Accuracy()
    for start in (0, 3):  # three examples, then one
        rows = slice(start, start + 3)
        metric.update({"predicted": torch.tensor(predicted)[rows]}, torch.tensor([0, 1, 2, 2])[rows])
    assert metric.value() == value
    assert (metric.name, metric.unit, metric.higher_is_better) == ("accuracy", "percent", True)


def test_views_say_together_what_their_mean_probability_says() -> None:
    views = torch.stack((LOGITS, LOGITS.flip(0)))  # two examples of two views
    mean = F.softmax(views, -1).mean(1)
    found = Classification(3).decode(Classification(3).combine_views(views), LABELS)
    torch.testing.assert_close(found["probability_true"], mean[[0, 1], LABELS])
    assert found["predicted"].tolist() == mean.argmax(-1).tolist()


def test_a_linear_head_draws_as_it_always_has() -> None:
    """torch's own initialisation, then the truncated normal: the numbers that follow are part of a run's identity."""
    torch.manual_seed(3)
    expected = nn.Linear(5, 4)
    nn.init.trunc_normal_(expected.weight, std=0.02, a=-0.04, b=0.04)
    follows = torch.rand(())
    torch.manual_seed(3)
    objective = Classification(4)
    head = objective.head(5)
    objective.reset_head(head)
    assert isinstance(head, nn.Linear)
    assert torch.equal(head.weight, expected.weight)
    assert not head.bias.any()
    assert torch.rand(()) == follows
    before = head.weight.clone()
    objective.reset_head(head)
    assert not torch.equal(head.weight, before)


def test_what_a_track_asks() -> None:
    assert type(objective_of_track("image", ("a", "b"), ())) is Classification
    assert type(objective_of_track("video", ("a", "b"), ())) is Classification
    by_name = objective_of_track("openvocab", ("a", "b"), ("a {}.",))
    assert (by_name.names, by_name.templates, by_name.output) == (("a", "b"), ("a {}.",), "projected")


def test_what_a_card_says_of_labels() -> None:
    split = Split(torch.zeros(4, 3, 2, 2), torch.tensor([2, 0, 2, 0]), ("a", "b", "c", "d"))
    objective = Classification(4)
    assert objective.chance(split) == 25.0
    assert objective.caption(split, 0) == "c"
    assert objective.one_of_each(split) == [1, 0]
    assert objective.facts() == {"num_classes": 4}


def test_an_open_vocabulary_is_posed_to_the_classes_of_the_split() -> None:
    class Model(nn.Module):
        class_names: tuple[str, ...] = ("a", "b")

        def set_class_names(self, names: tuple[str, ...]) -> None:
            self.class_names = tuple(reversed(names))

    model, objective = Model(), OpenVocabulary(("a", "b"), ("{}",))
    objective.pose(model, Split(torch.zeros(0, 3, 2, 2), torch.zeros(0, dtype=torch.int64), ("a", "b")))
    assert model.class_names == ("a", "b")  # already: texts are not encoded again
    objective.pose(model, Split(torch.zeros(0, 3, 2, 2), torch.zeros(0, dtype=torch.int64), ("c", "d")))
    assert model.class_names == ("d", "c")


def test_an_objective_without_views_says_so() -> None:
    class Bare(Classification):
        combine_views = Objective.combine_views

    with pytest.raises(Unsupported, match="Bare does not combine the views of an example"):
        Bare(2).combine_views(torch.zeros(1, 2, 2))
