"""Prompt learning on CLIP: each method against a step-by-step script of what its paper says."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from invariants import CLASS_NAMES, Case, labels, logits
from torch import Tensor, nn
from torch.nn import functional as F

from peftmark.benchmark.savings import checkpointed
from peftmark.errors import PeftmarkError
from peftmark.methods import AdaptedModel, Context, adapt
from peftmark.methods.openvocab.context_prompt import embedded_words
from peftmark.methods.openvocab.deep_prompts import without_prompts
from peftmark.methods.openvocab.prograd import aligned
from peftmark.methods.openvocab.promptsrc import epoch_weights

CASE = Case("coop", "open_vocabulary")
TEMPLATES = ("a picture of a {}.", "{} in a field.")
START, SCALE = 1, 1 / 0.07
DEEP = ("ivlp", "maple", "promptsrc")


def moved(method: str, class_names: tuple[str, ...] = CLASS_NAMES, **config: object) -> AdaptedModel:
    """On random weights, everything trainable far from where it starts."""
    torch.manual_seed(3)
    model = adapt(CASE.anatomy(), method, class_names=class_names, templates=TEMPLATES, **config)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def context(epochs: int = 1, steps: int = 1) -> Context:
    return Context(epochs, steps, CLASS_NAMES, TEMPLATES)


def image_features(bare: Any, images: Tensor) -> Tensor:
    return F.normalize(bare.projected(images), dim=-1)


def text_features(bare: Any, embedded: Tensor, texts: list[str], deep: tuple[Tensor, ...] = ()) -> Tensor:
    """Embeddings (C, L, width) through the bare tower, block by block; `deep` replaces the tokens behind the start."""
    clip, ids = bare.root, bare.text.tokenize(texts)[:, : embedded.shape[1]]
    length = embedded.shape[1]
    x = embedded + clip.positional_embedding[:length]
    for index, block in enumerate(clip.transformer.resblocks):
        if 0 < index <= len(deep):
            x = x.clone()
            x[:, START : START + len(deep[index - 1])] = deep[index - 1]
        x = block(x, attn_mask=clip.attn_mask[:length, :length])
    x = clip.ln_final(x)[torch.arange(len(ids)), ids.argmax(dim=1)]
    return F.normalize(x @ clip.text_projection, dim=-1)


def written(bare: Any, templates: tuple[str, ...] = TEMPLATES, each: bool = True) -> Tensor:
    """The teacher: class features by templates."""
    features = []
    for template in templates:
        ids = bare.text.tokenize([template.format(name) for name in CLASS_NAMES])
        encoded = bare.root.encode_text(ids)
        features.append(encoded / encoded.norm(dim=-1, keepdim=True) if each else encoded)
    mean = sum(features) / len(features)
    return mean / mean.norm(dim=-1, keepdim=True)


def with_context(bare: Any, tokens: Tensor, words: str = "") -> tuple[Tensor, list[str]]:
    """[start | tokens | rest of words, class name . end], and the texts that these stand for."""
    texts = [f"{words or ' '.join(['x'] * len(tokens))} {name}." for name in CLASS_NAMES]
    embedded = bare.text.embed(bare.text.tokenize(texts)).detach().clone()
    embedded[:, START : START + len(tokens)] = tokens
    return embedded, texts


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


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


# --- IVLP, MaPLe, PromptSRC: prompts in both towers


def image_tower(bare: Any, images: Tensor, first: Tensor, deep: tuple[Tensor, ...]) -> Tensor:
    """Normalised features by hand: `first` behind the tokens before ln_pre, `deep` in their place block by block."""
    tower, n = bare.model, len(first)
    x = tower.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat((tower.class_embedding.expand(len(x), 1, -1), x), dim=1) + tower.positional_embedding
    x = tower.ln_pre(torch.cat((x, first.expand(len(x), -1, -1)), dim=1))
    for index, block in enumerate(tower.transformer.resblocks):
        if 0 < index <= len(deep):
            x = torch.cat((x[:, :-n], deep[index - 1].expand(len(x), -1, -1)), dim=1)
        x = block(x)
    return F.normalize(tower.ln_post(x[:, 0]) @ tower.proj, dim=-1)


def parts(model: AdaptedModel) -> tuple[list[Tensor], list[Tensor]]:
    """What the inserts of `model` hold: deep text prompts, and image prompts from the first."""
    text = [block.module.slots["before"][0].context for block in model.text.blocks if "slots" in block.module._modules]
    before = [model.anatomy.model.ln_pre.slots["before"][0]]
    before += [b.module.slots["before"][0] for b in model.anatomy.blocks if "slots" in b.module._modules]
    return text, [insert.prompts() for insert in before]


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("ivlp", {}),
        ("ivlp", {"n_ctx": 3, "prompt_length": 4, "depth": 2}),
        ("ivlp", {"n_ctx": 7, "depth": 1}),
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
        assert len(image) == min(depth, 3 if method == "maple" else 6)
        assert len(tokens) == model.method.n_ctx
        words = "a photo of a" if len(tokens) <= 5 else ""  # the embedded tokenizer cuts "photo" in two
        embedded, texts = with_context(bare, tokens, words)
        expected = text_features(bare, embedded, texts, tuple(text))
        features = image_tower(bare, CASE.images(), image[0], tuple(image[1:]))
        close(model.features(CASE.images()), features)
        close(model.text_features(), expected)
        close(model(CASE.images()), SCALE * features @ expected.T)


@pytest.mark.parametrize("method", DEEP)
def test_the_other_words_stay_frozen(method: str) -> None:
    torch.manual_seed(0)
    model = adapt(CASE.anatomy(), method, class_names=CLASS_NAMES, n_ctx=2)
    prompt, words = model.text.prompt, embedded_words(model.text, "a photo of a")
    assert torch.equal(prompt.context, words[:2])
    assert torch.equal(prompt()[0][:, START + 2 : START + 5], words[None, 2:])  # shared by all classes
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
    torch.testing.assert_close(epoch_weights(20, 0.75, 0.05), expected)
    assert int(epoch_weights(100, 0.75, 0.05).argmax()) == 74  # epoch 75
    assert float(epoch_weights(7, 0.0, 0.01).sum()) == pytest.approx(1)  # densities of which all but one vanish


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


# --- hyper-parameters


@pytest.mark.parametrize(
    ("method", "config", "message"),
    [
        ("cocoop", {"reduction": 0}, "reduction must be at least 1"),
        ("kgcoop", {"weight": -1.0}, "weight not negative"),
        ("prograd", {"temperature": 0.0}, "temperature above 0"),
        ("ivlp", {"depth": 0}, "depth must be at least 1"),
        ("maple", {"n_ctx": 0}, "n_ctx and depth"),
        ("promptsrc", {"gpa_std": 0.0}, "gpa_std must be above 0"),
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
