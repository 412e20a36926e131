"""Prompt learning on CLIP: CoCoOp, KgCoOp and ProGrad by hand, and what holds for all of its kind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from invariants import CLASS_NAMES, labels, logits
from openvocab_by_hand import (
    CASE,
    DEEP,
    SCALE,
    START,
    TEMPLATES,
    close,
    context,
    image_features,
    moved,
    text_features,
    with_context,
    written,
)
from torch import nn
from torch.nn import functional as F

from peftmark.adapting import adapt
from peftmark.benchmark.run.memory_savings import checkpointed
from peftmark.errors import PeftmarkError
from peftmark.methods import AdaptedModel
from peftmark.methods.openvocab.prograd import aligned
from peftmark.methods.parts.context_prompt import embedded_words

# --- CoCoOp


def test_cocoop_is_a_loop_over_images() -> None:
    model, bare = moved("cocoop").eval(), CASE.anatomy()
    prompt, rows = model.text.prompt, []
    first, _, last = prompt.meta
    assert (first.weight.shape, last.weight.shape) == ((8, 128), (128, 8))
    with torch.no_grad():
        for feature in image_features(bare, CASE.images()):
            shift = last.weight @ (first.weight @ feature + first.bias).clamp(min=0) + last.bias
            embedded, texts = with_context(bare, prompt.context + shift)
            rows.append(SCALE * text_features(bare, embedded, texts) @ feature)
        close(model(CASE.images()), torch.stack(rows))


def test_cocoop_s_context_and_meta_net_on_their_own() -> None:
    """The context is that of the words; a meta-net of zeros leaves CoOp."""
    torch.manual_seed(0)
    model = adapt(CASE.anatomy(), "cocoop", class_names=CLASS_NAMES)
    assert torch.equal(model.text.prompt.context, embedded_words(model.text, "a photo of a"))
    for parameter in model.text.prompt.meta.parameters():
        nn.init.zeros_(parameter)
    coop = adapt(CASE.anatomy(), "coop", class_names=CLASS_NAMES, init_words="a photo of a")
    close(logits(model, CASE), logits(coop, CASE))
    assert adapt(CASE.anatomy(), "cocoop", class_names=CLASS_NAMES, init_words="", n_ctx=3).text.prompt.n_ctx == 3


# --- KgCoOp


def test_kgcoop_s_loss() -> None:
    model, bare = moved("kgcoop", weight=3.0), CASE.anatomy()
    with torch.no_grad():
        embedded, texts = with_context(bare, model.text.prompt.context)
        learned = text_features(bare, embedded, texts)
        predictions = SCALE * image_features(bare, CASE.images()) @ learned.T
        distance = 1 - F.cosine_similarity(learned, written(bare), dim=1, eps=1e-7).mean()
        expected = F.cross_entropy(predictions, labels()) + 3.0 * distance
    assert distance > 0.01
    close(model.method.loss(model, CASE.images(), labels(), context()), expected)


def test_kgcoop_starts_from_the_words_and_learns_from_the_templates() -> None:
    model = adapt(CASE.anatomy(), "kgcoop", class_names=CLASS_NAMES, templates=TEMPLATES)
    assert model.method.config() == {"n_ctx": 4, "init_words": "a photo of a", "weight": 8.0}
    assert torch.equal(model.text.prompt.context, embedded_words(model.text, "a photo of a"))
    close(model.text.prompt.teacher(model.text), written(CASE.anatomy()))


# --- ProGrad


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((0.0, 0.5, 1.0)), st.booleans())
def test_the_aligned_gradient_follows_the_rule(seed: int, weight: float, agree: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    gradient, general = (torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    if ((gradient * general).sum() > 0) != agree:
        general = -general
    found = aligned(gradient, general, weight)
    if agree:
        assert torch.equal(found, gradient)
        return
    unit = (general / general.norm()).flatten()
    expected = gradient.flatten() - weight * (gradient.flatten() @ unit) * unit
    torch.testing.assert_close(found.flatten(), expected)
    if weight == 1.0:  # what is left is orthogonal to what the teacher says
        assert abs(float((found * general).sum())) < 1e-9


def test_a_general_gradient_of_zero_changes_nothing() -> None:
    gradient = torch.randn(3, 2)
    assert torch.equal(aligned(gradient, torch.zeros(3, 2)), gradient)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_step_of_prograd(sign: int) -> None:
    """Both gradients by hand; labels that the teacher likes, or likes least, bring both branches."""
    model, bare, temperature = moved("prograd", temperature=2.0, weight=0.7), CASE.anatomy(), 2.0
    prompt, images = model.text.prompt, CASE.images()
    features = image_features(bare, images).detach()
    teacher = (SCALE * features @ written(bare).T).detach()
    chosen = (sign * teacher).argmax(dim=1)
    tokens = prompt.context.detach().clone().requires_grad_()
    embedded, texts = with_context(bare, tokens.detach())
    embedded = torch.cat((embedded[:, :START], tokens.expand(len(texts), -1, -1), embedded[:, START + 16 :]), dim=1)
    student = SCALE * features @ text_features(bare, embedded, texts).T
    soft = -((teacher / temperature).softmax(1) * (student / temperature).log_softmax(1)).sum(1).mean() * 4.0
    [general] = torch.autograd.grad(soft, tokens, retain_graph=True)
    [specific] = torch.autograd.grad(F.cross_entropy(student, chosen), tokens)
    cosine = F.cosine_similarity(specific.flatten(), general.flatten(), dim=0)
    assert (float(cosine) > 0) == (sign > 0)
    unit = general / general.norm()
    expected = specific if cosine >= 0 else specific - 0.7 * (specific * unit).sum() * unit

    loss = model.method.loss(model, images, chosen, context())
    close(loss, F.cross_entropy(student, chosen))
    loss.backward()
    copy.deepcopy(model)  # also between the passes
    model.method.after_backward(model, context())
    close(prompt.context.grad, expected)
    assert model.method._general == {}


def test_prograd_s_context_is_the_template_right_aligned() -> None:
    model = adapt(CASE.anatomy(), "prograd", class_names=CLASS_NAMES, templates=("{}", *TEMPLATES))
    words = embedded_words(model.text, "a picture of a")
    tokens = model.text.prompt.context
    assert tokens.shape == (16, 128)
    assert torch.equal(tokens[-len(words) :], words)
    assert torch.equal(tokens[: -len(words)], torch.zeros(16 - len(words), 128))
    short = adapt(CASE.anatomy(), "prograd", class_names=CLASS_NAMES, templates=TEMPLATES, n_ctx=2)
    assert torch.equal(short.text.prompt.context, words[-2:])
    none = adapt(CASE.anatomy(), "prograd", class_names=CLASS_NAMES, templates=("{} here",))
    assert torch.equal(none.text.prompt.context, torch.zeros(16, 128))


def test_prograd_counts_words_and_leaves_what_they_are_more_than_frozen() -> None:
    """As its trainers/prograd.py: "circle," is one word and two tokens, so the last "a" is none of the context's."""
    before = "a red circle, a picture of a"
    model = adapt(CASE.anatomy(), "prograd", class_names=CLASS_NAMES, templates=(before + " {}.",), n_ctx=10).eval()
    prompt, bare = model.text.prompt, CASE.anatomy()
    tokens = embedded_words(model.text, before)
    assert len(tokens) == 8
    assert torch.equal(prompt.context, torch.cat((torch.zeros(3, 128), tokens[:7])))
    with torch.no_grad():
        prompt.context.add_(torch.randn(10, 128, generator=torch.Generator().manual_seed(4)) * 0.1)
    texts = [f"x x x {before} {name}." for name in CLASS_NAMES]
    embedded = bare.text.embed(bare.text.tokenize(texts)).detach().clone()
    embedded[:, START : START + 10] = prompt.context.detach()
    with torch.no_grad():
        expected = SCALE * image_features(bare, CASE.images()) @ text_features(bare, embedded, texts).T
    close(logits(model, CASE), expected)
    short = adapt(CASE.anatomy(), "prograd", class_names=CLASS_NAMES, templates=("green red_circle, in {}",), n_ctx=2)
    assert torch.equal(short.text.prompt.context, embedded_words(short.text, "circle,"))  # of "circle, in"


# --- all of them


@pytest.mark.parametrize("method", ["kgcoop", "prograd", "cocoop", *DEEP])
def test_new_classes_after_training(method: str) -> None:
    """What was learned serves them: logits of a model that was made for the new names with the same parameters."""
    model = moved(method)
    model.method.loss(model, CASE.images(), labels(), context()).backward()
    new = ("owl", "tree house", "piano")
    model.eval().set_class_names(new)
    fresh = moved(method, new)
    fresh.load_adapter_state_dict(model.adapter_state_dict())
    close(logits(model, CASE), logits(fresh, CASE))
    if method in ("kgcoop", "prograd", "promptsrc"):
        assert model.text.prompt.teacher(model.text).shape == (3, 128)


@pytest.mark.parametrize(("method", "passes"), [("kgcoop", 1), ("prograd", 1), ("promptsrc", 2)])
def test_a_loss_encodes_images_once_for_each_model(method: str, passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frozen image tower is the teacher's, too; PromptSRC's is another one."""
    model, encode = moved(method), AdaptedModel.encode
    seen = []
    monkeypatch.setattr(AdaptedModel, "encode", lambda self, images: seen.append(1) or encode(self, images))
    model.method.loss(model, CASE.images(), labels(), context())
    assert len(seen) == passes


@pytest.mark.parametrize(
    ("method", "order"),
    [
        ("kgcoop", ["learned", "written", "written", "images"]),
        ("prograd", ["images", "learned", "written", "written"]),
        ("promptsrc", ["written", "written", "images", "learned", "images"]),
    ],
)
def test_the_order_of_passes(method: str, order: list[str]) -> None:
    """Where both towers drop, it decides what each draws."""
    config = {"teacher_templates": "task"} if method == "promptsrc" else {}
    model, seen = moved(method, **config).train(), []
    model.backbone.visual.ln_post.register_forward_hook(lambda *_: seen.append("images"))
    encode = model.text.encode

    def watched(embedded: torch.Tensor, ids: Any) -> torch.Tensor:
        seen.append("learned" if embedded.requires_grad else "written")
        return encode(embedded, ids)

    model.text.encode = watched
    model.method.loss(model, CASE.images(), labels(), context())
    assert seen == order


# --- hyper-parameters


@pytest.mark.parametrize(
    ("method", "config", "message"),
    [
        ("cocoop", {"reduction": 0}, "reduction=0 is not valid: Expected `int` >= 1"),
        ("kgcoop", {"weight": -1.0}, "weight=-1.0 is not valid: Expected `float` >= 0.0"),
        ("prograd", {"temperature": 0.0}, "temperature=0.0 is not valid: Expected `float` > 0.0"),
        ("ivlp", {"depth": 0}, "depth=0 is not valid: Expected `int` >= 1"),
        ("ivlp", {"image_depth": -1}, "image_depth=-1 is not valid: Expected `int` >= 0"),
        ("maple", {"n_ctx": 0}, "n_ctx=0 is not valid: Expected `int` >= 1"),
        ("promptsrc", {"gpa_std": 0.0}, "gpa_std=0.0 is not valid: Expected `float` > 0.0"),
        ("promptsrc", {"teacher_templates": "none"}, "teacher_templates"),
        ("kgcoop", {"init_words": "", "n_ctx": 31}, "leaves no room"),
        ("prograd", {"n_ctx": 31}, "leaves no room"),
    ],
)
def test_bad_values(method: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(PeftmarkError, match=message):
        adapt(CASE.anatomy(), method, class_names=CLASS_NAMES, **config)


# --- what training may add


@pytest.mark.parametrize("method", ["kgcoop", "prograd", "cocoop", *DEEP])
@pytest.mark.parametrize("saving", ["bfloat16", "checkpointing"])
def test_a_step_under_the_savings_of_a_protocol(method: str, saving: str) -> None:
    """Gradients are those of a plain step: to a few bits in half precision, all of them where blocks run twice."""
    gradients = []
    for half, twice in ((False, False), (saving == "bfloat16", saving == "checkpointing")):
        model, run = moved(method), context(epochs=2, steps=2)
        with checkpointed(model.anatomy, twice), torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model.method.loss(model, CASE.images(), labels(), run)
        loss.backward()
        model.method.after_backward(model, run)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
    plain, saved = gradients
    assert saved.dtype == torch.float32
    if saving == "bfloat16":
        assert F.cosine_similarity(plain, saved, dim=0) > 0.95
    else:
        close(saved, plain)
