"""When the classes' features are kept, and when they carry gradients."""

from __future__ import annotations

import pytest
import torch
from invariants import CASES, CLASS_NAMES, Case, labels
from torch import Tensor
from torch.nn import functional as F

from peftmark.adapting import adapt
from peftmark.methods import AdaptedModel, Context, OpenVocabularyClassifier
from peftmark.methods.parts.context_prompt import ContextPrompt

WITHOUT_DROPOUT = {"clip_lora": {"dropout": 0.0}}
METHODS = sorted({case.method for case in CASES if case.track == "openvocab"})


def adapted(method: str) -> OpenVocabularyClassifier:
    case = Case(method, "openvocab")
    torch.manual_seed(3)
    batches = [(case.images(), labels())]
    model = adapt(case.anatomy(), method, class_names=CLASS_NAMES, batches=batches, **WITHOUT_DROPOUT.get(method, {}))
    assert isinstance(model, OpenVocabularyClassifier)
    with torch.no_grad():  # away from the start, where some gradients are zero
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.02)
    return model


def gradients(model: AdaptedModel) -> dict[str, Tensor]:
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    torch.manual_seed(5)  # of dropout
    loss = F.cross_entropy(model(Case("coop", "openvocab").images()), labels())
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(trained, found, strict=True) if gradient is not None}


TEXT_TRAINS = ("clip_lora", "cocoop", "coop", "ivlp", "kgcoop", "maple", "prograd", "promptsrc", "tpt")


@pytest.mark.parametrize("method", TEXT_TRAINS)
def test_evaluation_mode_has_the_gradients_of_training_mode(method: str) -> None:
    model = adapted(method)
    expected = gradients(model.train())
    with torch.no_grad():
        model.eval()(Case(method, "openvocab").images(2))  # what is kept here must not be taken for them
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7, msg=name)
    gradients(model)  # a second backward pass has a graph of its own


def test_these_are_the_methods_whose_text_side_trains() -> None:
    assert tuple(method for method in METHODS if adapted(method).text.trainable) == TEXT_TRAINS


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("training", [True, False])
def test_a_prediction_in_inference_mode_leaves_a_model_that_trains(method: str, training: bool) -> None:
    case = Case(method, "openvocab")
    fresh, model = adapted(method), adapted(method)
    with torch.inference_mode():
        model.eval()(case.images())
    if not model.trainable_parameters():
        return
    expected, found = gradients(fresh.train(training)), gradients(model.train(training))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("method", ["coop", "ivlp", "clip_lora"])
def test_kept_features_follow_a_step_in_evaluation_mode(method: str) -> None:
    model = adapted(method).eval()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    with torch.no_grad():
        before = model.text_features()
        assert model.text_features() is before
    F.cross_entropy(model(Case(method, "openvocab").images()), labels()).backward()
    optimizer.step()
    with torch.no_grad():
        assert not torch.equal(model.text_features(), before)
        assert torch.equal(model.text_features(), model.class_features())


OTHER_NAMES = ("owl", "tree house", CLASS_NAMES[0], "piano", "lamp")


@pytest.mark.parametrize("method", [method for method in METHODS if method != "linear_probe"])  # its names are final
def test_class_names_of_inference_mode_can_be_trained_with(method: str) -> None:
    """What is kept of them (embeddings, a cache's values) are no inference tensors."""
    case = Case(method, "openvocab")
    found = []
    for mode in (True, False):
        model = adapted(method)
        with torch.inference_mode(mode):
            torch.manual_seed(7)
            model.set_class_names(OTHER_NAMES)
            if mode:
                model.eval()(case.images())
        if model.trainable_parameters():
            found.append(gradients(model.train()))
    if found:
        with_mode, without = found
        assert with_mode.keys() == without.keys()
        assert all(torch.equal(with_mode[name], without[name]) for name in without)


def test_class_specific_contexts_of_inference_mode_train() -> None:
    """They are made when the names are first known."""
    text = Case("coop", "openvocab").anatomy().text_tower()
    prompt = ContextPrompt(text, 3, class_specific=True)
    text.insert_prompt(prompt)
    with torch.inference_mode():
        text.set_class_names(CLASS_NAMES)
    F.normalize(text.encode(*prompt()), dim=-1).square().sum().backward()
    assert prompt.context.grad is not None


@pytest.mark.parametrize("method", ["kgcoop", "prograd", "promptsrc"])
def test_a_teacher_asked_for_in_inference_mode_teaches(method: str) -> None:
    """KgCoOp's loss keeps its features for the backward pass."""
    losses = []
    for mode in (True, False):
        model = adapted(method)
        with torch.inference_mode(mode):
            teacher = model.text.prompt.teacher(model.text)
        assert not teacher.is_inference() and not teacher.requires_grad
        run = Context(1, 1, CLASS_NAMES)
        loss = model.method.loss(model.train(), Case(method, "openvocab").images(), labels(), run)
        loss.backward()
        losses.append(loss)
    assert torch.equal(*losses)
