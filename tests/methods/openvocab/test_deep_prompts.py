"""IVLP, MaPLe and PromptSRC: prompts in both towers, each against a step-by-step script of what its paper says."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from invariants import CLASS_NAMES, labels
from openvocab_by_hand import (
    CASE,
    DEEP,
    SCALE,
    START,
    close,
    context,
    image_features,
    image_tower,
    moved,
    text_features,
    with_context,
    written,
)
from torch import Tensor

from peftmark.adapting import adapt
from peftmark.errors import PeftmarkError
from peftmark.methods import AdaptedModel
from peftmark.methods.openvocab.promptsrc import epoch_weights
from peftmark.methods.parts.context_prompt import embedded_words
from peftmark.methods.parts.prompts import without_prompts


def parts(model: AdaptedModel) -> tuple[list[Tensor], list[Tensor]]:
    """What the inserts of `model` hold: deep text prompts, and image prompts from the first."""
    text = [block.module.slots["before"][0].context for block in model.text.blocks if "slots" in block.module._modules]
    before = [model.anatomy.model.ln_pre.slots["before"][0]]
    before += [b.module.slots["before"][0] for b in model.anatomy.blocks if "slots" in b.module._modules]
    return text, [insert.learned() for insert in before]


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("ivlp", {}),
        ("ivlp", {"n_ctx": 3, "prompt_length": 4, "depth": 2}),
        ("ivlp", {"n_ctx": 7, "depth": 1}),
        ("ivlp", {"depth": 2, "image_depth": 5}),
        ("ivlp", {"depth": 3, "image_depth": 1}),
        ("maple", {}),
        ("maple", {"n_ctx": 3, "depth": 2}),
        ("promptsrc", {"depth": 5}),
    ],
)
def test_both_towers_by_hand(method: str, config: dict[str, int]) -> None:
    model, bare = moved(method, **config).eval(), CASE.anatomy()
    depth, tokens = model.method.depth, model.text.prompt.context
    with torch.no_grad():
        text, image = parts(model)
        assert len(text) == min(depth, 3) - 1
        assert len(image) == min(config.get("image_depth", depth), 3 if method == "maple" else 6)
        assert len(tokens) == model.method.n_ctx
        words = "a photo of a" if len(tokens) <= 5 else ""  # the embedded tokenizer cuts "photo" in two
        embedded, texts = with_context(bare, tokens, words)
        expected = text_features(bare, embedded, texts, tuple(text))
        features = image_tower(bare, CASE.images(), image[0], tuple(image[1:]))
        close(model.features(CASE.images()), features)
        close(model.text_features(), expected)
        close(model(CASE.images()), SCALE * features @ expected.T)


def test_ivlp_without_image_prompts() -> None:
    """PROMPT_DEPTH_VISION of 0: the image tower is the bare one."""
    model = moved("ivlp", image_depth=0).eval()
    with torch.no_grad():
        assert torch.equal(model.features(CASE.images()), image_features(CASE.anatomy(), CASE.images()))
        assert (model.text_features() - written(CASE.anatomy())).abs().max() > 1e-3
    assert model.trainable_parameters() == 3 * 2 * 128


@pytest.mark.parametrize("method", DEEP)
def test_the_other_words_stay_frozen(method: str) -> None:
    torch.manual_seed(0)
    model = adapt(CASE.anatomy(), method, class_names=CLASS_NAMES, n_ctx=2)
    prompt, words = model.text.prompt, embedded_words(model.text, "a photo of a")
    assert torch.equal(prompt.context, words[:2])
    assert torch.equal(prompt()[0][START + 2 : START + 5], words[2:])  # shared by all classes
    assert not prompt.suffix.requires_grad
    text, image = parts(model)
    drawn = text if method == "maple" else [*text, *image]
    assert all(0.01 < float(tokens.detach().std()) < 0.03 for tokens in drawn)
    more = adapt(CASE.anatomy(), method, class_names=CLASS_NAMES, n_ctx=6)  # the words have five
    assert 0.01 < float(more.text.prompt.context.detach().std()) < 0.03
    with pytest.raises(PeftmarkError, match="leaves no room"):
        adapt(CASE.anatomy(), method, class_names=CLASS_NAMES, n_ctx=2, init_words="a photo " * 15)


def test_maple_s_image_prompts_are_projections() -> None:
    torch.manual_seed(0)
    model = adapt(CASE.anatomy(), "maple", class_names=CLASS_NAMES)
    text, image = parts(model)
    inserts = [model.anatomy.model.ln_pre.slots["before"][0]]
    inserts += [block.module.slots["before"][0] for block in model.anatomy.blocks[1:3]]
    sources = [model.text.prompt.context, *text]
    for insert, source, prompts in zip(inserts, sources, image, strict=True):
        close(prompts, source @ insert.projection.weight.T + insert.projection.bias)
    first, second, third = (insert.projection for insert in inserts)
    assert torch.equal(second.weight, third.weight)
    assert torch.equal(second.bias, third.bias)
    assert not torch.equal(first.weight, second.weight)
    assert second.weight.data_ptr() != third.weight.data_ptr()
    # each text prompt is counted and saved once
    assert sum("context" in name for name in model.adapter_state_dict()) == 3


def test_both_towers_train_maple_s_text_prompts() -> None:
    model = moved("maple")
    sources = [model.text.prompt.context, *parts(model)[0]]
    by_images = torch.autograd.grad(model.features(CASE.images()).sum(), sources, allow_unused=True)
    by_texts = torch.autograd.grad(model.text_features().sum(), sources)
    assert all(gradient is not None and bool(gradient.abs().max() > 0) for gradient in (*by_images, *by_texts))
    twin = copy.deepcopy(model)  # whose image prompts follow its own text prompts
    with torch.no_grad():
        twin.text.prompt.context.add_(1.0)
    assert not torch.equal(parts(twin)[1][0], parts(model)[1][0])


@pytest.mark.parametrize("method", DEEP)
def test_image_prompts_leave_before_the_read_out(method: str) -> None:
    """Where all patch tokens are pooled, these must be the backbone's own."""
    model = moved(method).eval()
    seen: list[tuple[int, ...]] = []
    tower = model.anatomy.model
    tower.ln_post.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    with torch.no_grad():
        model.features(CASE.images())
        tower.pool_type = "avg"
        pooled = model.anatomy.pooled(CASE.images())
        tokens = tower.ln_post(tower.transformer(tower._embeds(CASE.images())))
    assert seen[0] == (6, 26, 128)
    close(pooled, tokens[:, 1:26].mean(dim=1))


# --- PromptSRC


def test_promptsrc_s_losses() -> None:
    model = moved("promptsrc", teacher_templates="task", text_weight=3.0, image_weight=5.0)
    bare, images = CASE.anatomy(), CASE.images()
    with torch.no_grad():
        text, image = parts(model)
        learned = text_features(bare, *with_context(bare, model.text.prompt.context, "a photo of a"), tuple(text))
        features = image_tower(bare, images, image[0], tuple(image[1:]))
        teacher, frozen = written(bare, each=False), image_features(bare, images)
        p, q = (SCALE * features @ learned.T).softmax(1), (SCALE * frozen @ teacher.T).softmax(1)
        expected = (
            -p[torch.arange(6), labels()].log().mean()
            + 3.0 * (learned - teacher).abs().sum() / (5 * 128)
            + 5.0 * (features - frozen).abs().sum() / (6 * 128)
            + (q * (q / p).log()).sum() / (6 * 5)
        )
    loss = model.method.loss(model, images, labels(), context())
    close(loss, expected)
    close(model.text.prompt.taught, teacher)
    loss.backward()
    assert all(bool(p.grad.abs().max() > 0) for p in model.parameters() if p.requires_grad)


def test_promptsrc_s_teachers_are_the_bare_towers() -> None:
    model, bare = moved("promptsrc"), CASE.anatomy()
    with torch.no_grad(), without_prompts(model):
        close(model.features(CASE.images()), image_features(bare, CASE.images()))
        teacher = model.text.prompt.teacher(model.text)
    prompt = model.text.prompt
    assert len(prompt.templates) == 60
    close(teacher, written(bare, prompt.templates, each=False))
    assert (teacher - written(bare, prompt.templates)).abs().max() > 1e-6  # not what a normalised mean gives
    with torch.no_grad():
        assert (model.features(CASE.images()) - image_features(bare, CASE.images())).abs().max() > 1e-3


def test_gaussian_weights() -> None:
    """The official ones at the paper's 20 epochs: mean 15, deviation 1, divided by their sum."""
    density = [math.exp(-0.5 * (epoch - 15) ** 2) / math.sqrt(2 * math.pi) for epoch in range(1, 21)]
    expected = torch.tensor(density, dtype=torch.float64) / sum(density)
    torch.testing.assert_close(torch.tensor(epoch_weights(20, 0.75, 0.05), dtype=torch.float64), expected)
    assert max(range(100), key=epoch_weights(100, 0.75, 0.05).__getitem__) == 74  # epoch 75
    assert sum(epoch_weights(7, 0.0, 0.01)) == pytest.approx(1)  # densities of which all but one vanish


def test_the_final_prompts_are_the_average_over_epochs() -> None:
    model = moved("promptsrc", gpa_mean=0.5, gpa_std=0.3)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    run, generator, history = context(epochs=3, steps=2), torch.Generator().manual_seed(7), []
    for step in range(1, 7):
        with torch.no_grad():
            for parameter in trained:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        before = [parameter.clone() for parameter in trained]
        run.step = step
        model.method.after_step(model, run)
        if step % 2 == 0:
            history.append(before)
        if step < 6:
            assert all(torch.equal(a, b) for a, b in zip(before, trained, strict=True))
        copy.deepcopy(model)
    weights = [math.exp(-0.5 * ((epoch - 1.5) / 0.9) ** 2) for epoch in (1, 2, 3)]
    for index, parameter in enumerate(trained):
        mean = sum(w * epoch[index] for w, epoch in zip(weights, history, strict=True)) / sum(weights)
        close(parameter, mean)
    assert model.method._average == {}
