"""CLIP-Adapter, Tip-Adapter, CLIP-LoRA and TPT against scripts that follow their papers step by step."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from invariants import CLASS_NAMES, Case, labels, logits
from torch.nn import functional as F

from peftmark.adapting import adapt
from peftmark.benchmark.run.step import make_optimizer
from peftmark.errors import NotMergeable, PeftmarkError
from peftmark.methods import AdaptedModel
from peftmark.methods.openvocab.clip_lora import placed
from peftmark.methods.openvocab.tip_adapter import KeyValueCache

CASE = Case("zero_shot", "openvocab")
TEMPLATES = ["a picture of a {}."]


def adapted(method: str, **config: object) -> AdaptedModel:
    torch.manual_seed(3)
    batches = [(CASE.images(), labels())]
    model = adapt(CASE.anatomy(), method, class_names=CLASS_NAMES, templates=TEMPLATES, batches=batches, **config)
    return model.eval()


def zero_shot() -> AdaptedModel:
    return adapted("zero_shot")


def scale(model: AdaptedModel) -> torch.Tensor:
    return model.backbone.logit_scale.exp()


@torch.no_grad()
def test_clip_adapter_blends_the_embedding_before_it_is_normalised() -> None:
    model = adapted("clip_adapter", ratio=0.3)
    adapter = model.backbone.slots["image"][0]
    f = model.backbone.visual(CASE.images())
    blended = 0.3 * F.relu(F.relu(f @ adapter.down.weight.T) @ adapter.up.weight.T) + 0.7 * f
    expected = scale(model) * F.normalize(blended, dim=-1) @ zero_shot().text_features().T
    torch.testing.assert_close(logits(model, CASE), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_clip_adapter_with_ratio_zero_is_zero_shot() -> None:
    torch.testing.assert_close(logits(adapted("clip_adapter", ratio=0.0), CASE), logits(zero_shot(), CASE))


@torch.no_grad()
def test_a_linear_probe_reads_features_of_variance_one_and_no_text() -> None:
    model = adapted("linear_probe")
    head = model.backbone.slots["logits"][0].head
    f = F.normalize(model.backbone.visual(CASE.images()), dim=-1)
    f = f * f.shape[1] ** 0.5
    torch.testing.assert_close(f.pow(2).mean(dim=1), torch.ones(6))
    torch.testing.assert_close(logits(model, CASE), f @ head.weight.T + head.bias, rtol=1e-5, atol=1e-5)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == model.trainable_parameters() == len(CLASS_NAMES) * (f.shape[1] + 1)


def cache_of(model: AdaptedModel) -> KeyValueCache:
    return model.backbone.slots["logits"][0]


@pytest.mark.parametrize("method", ["tip_adapter", "tip_adapter_f"])
@torch.no_grad()
def test_tip_adapter_adds_its_cache(method: str) -> None:
    model = adapted(method, alpha=1.5, beta=3.0)
    f = F.normalize(model.backbone.visual(CASE.images()), dim=-1)  # its own training images
    votes = torch.zeros(6, len(CLASS_NAMES))
    for n in range(6):
        for m in range(6):
            votes[n, labels()[m]] += 1.5 * math.exp(-3.0 * (1 - float(f[n] @ f[m])))
    torch.testing.assert_close(logits(model, CASE), logits(zero_shot(), CASE) + votes, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_keys_are_the_mean_of_the_views_but_the_first() -> None:
    """Which is the image itself, and not one of the official script's augmented passes."""
    generator = torch.Generator().manual_seed(5)
    views = torch.randn(6, 4, 3, 40, 40, generator=generator)
    model = adapt(CASE.anatomy(), "tip_adapter", class_names=CLASS_NAMES, batches=[(views, labels())])
    expected = F.normalize(model.eval().encode(views[:, 1:].flatten(0, 1)).unflatten(0, (6, 3)).mean(1), dim=-1)
    torch.testing.assert_close(cache_of(model).keys, expected)
    assert model.method.scoring_views().count == 11


def test_a_cache_of_no_images_is_refused() -> None:
    with pytest.raises(PeftmarkError, match="no training images"):
        adapt(CASE.anatomy(), "tip_adapter", class_names=CLASS_NAMES, batches=[])


@torch.no_grad()
def test_new_classes_get_nothing_from_the_cache() -> None:
    model, plain = adapted("tip_adapter"), zero_shot()
    names = ("pear", CLASS_NAMES[3], "lamp")
    model.set_class_names(names)
    plain.set_class_names(names)
    cached, bare = logits(model, CASE), logits(plain, CASE)
    assert torch.equal(cached[:, [0, 2]], bare[:, [0, 2]])
    assert (cached[:, 1] > bare[:, 1]).all()


@pytest.mark.parametrize(
    ("config", "alphas", "betas"),
    [
        ({"search": (3, 2)}, (0.1, 0.1 + 2.9 / 3, 0.1 + 2 * 2.9 / 3), (0.1, 0.1 + 6.9 / 2)),
        ({"search": (2, 3), "search_end": (10, 12)}, (0.1, 5.05), (0.1, 0.1 + 11.9 / 3, 0.1 + 2 * 11.9 / 3)),
    ],
)
def test_the_search_keeps_the_best_pair_of_the_official_grid(
    config: dict[str, tuple[float, float]], alphas: tuple[float, ...], betas: tuple[float, ...]
) -> None:
    """Tip-Adapter's utils.py, search_hp: from 0.1 in equal steps to the scale, which is not reached."""
    model = adapted("tip_adapter", **config)
    cache = cache_of(model)
    asked = []
    best = alphas[-1], betas[0]

    def accuracy() -> float:
        asked.append((cache.alpha.item(), cache.beta.item()))
        return 90.0 if asked[-1] == pytest.approx(best) else 50.0

    model.method.begin_phase("search", model, accuracy)
    assert asked[0] == (1.0, 5.5)  # the paper's, which win ties
    assert asked[1:] == [pytest.approx((alpha, beta)) for beta in betas for alpha in alphas]
    assert (cache.alpha.item(), cache.beta.item()) == pytest.approx(best)
    assert model.method.found() == pytest.approx({"alpha": best[0], "beta": best[1]})
    model.method.begin_phase("search", model, lambda: 50.0)
    assert model.method.found() == {"alpha": 1.0, "beta": 5.5}


@pytest.mark.parametrize("method", ["tip_adapter", "tip_adapter_f", "clip_lora"])
@torch.no_grad()
def test_the_official_scale_stands_in_the_model_s_place(method: str) -> None:
    own, official = (logits(adapted(method, **config), CASE) for config in ({}, {"logit_scale": 100.0}))
    cosines = logits(zero_shot(), CASE) / scale(zero_shot())
    torch.testing.assert_close(official - own, (100 - scale(zero_shot())) * cosines, rtol=1e-4, atol=1e-4)
    assert (official - own).abs().max() > 1


@pytest.mark.parametrize("method", ["tip_adapter", "clip_lora"])
@torch.no_grad()
def test_a_fixed_scale_goes_with_what_was_inserted(method: str) -> None:
    """Other methods on the same anatomy have the model's own again; a merged model would have it, too."""
    model, cosines = adapted(method, logit_scale=100.0), torch.rand(2, 5)
    assert torch.equal(model.text.scaled(cosines), 100 * cosines)
    with pytest.raises(NotMergeable):
        model.merge()
    model.restart()
    assert torch.equal(model.text.scaled(cosines), 100 * cosines)
    model.anatomy.clear()
    assert torch.equal(model.text.scaled(cosines), scale(model) * cosines)


def test_tip_adapter_f_s_first_step_with_the_official_epsilon() -> None:
    """AdamW's first step is the rate times g / (|g| + eps)."""
    for config, epsilon in (({}, 1e-4), ({"epsilon_of_adamw": 1e-2}, 1e-2)):
        model = adapted("tip_adapter_f", **config)
        keys, before = cache_of(model).keys, cache_of(model).keys.detach().clone()
        optimizer = make_optimizer(model, "adamw", 0.5, weight_decay=0.0)
        F.cross_entropy(model(CASE.images()), labels()).backward()
        assert 1e-5 < float(keys.grad.abs().mean()) < 1e-1  # where the epsilon matters
        optimizer.step()
        torch.testing.assert_close(keys, before - 0.5 * keys.grad / (keys.grad.abs() + epsilon))
    plain = make_optimizer(adapted("clip_adapter"), "adamw", 0.5, weight_decay=0.0)
    assert {group["eps"] for group in plain.param_groups} == {1e-8}


@pytest.mark.parametrize(
    ("method", "config", "message"),
    [
        ("tip_adapter", {"search_end": (0.1, 7)}, r"search_end=\(0.1, 7\) is not valid: Expected `float` > 0.1"),
        ("tip_adapter", {"logit_scale": -1}, "logit_scale=-1 is not valid: Expected `float` > 0.0"),
        ("clip_lora", {"logit_scale": 0}, "logit_scale=0 is not valid: Expected `float` > 0.0"),
        ("clip_lora", {"encoder": "image"}, "encoder"),
        ("tip_adapter_f", {"epsilon_of_adamw": 0}, "epsilon_of_adamw=0 is not valid: Expected `float` > 0.0"),
    ],
)
def test_values_out_of_range(method: str, config: dict[str, object], message: str) -> None:
    with pytest.raises(PeftmarkError, match=message):
        adapted(method, **config)


def test_tip_adapter_f_trains_its_keys_and_nothing_else() -> None:
    model = adapted("tip_adapter_f")
    assert model.trainable_parameters() == 6 * 128
    assert [p for p in model.parameters() if p.requires_grad] == [cache_of(model).keys]
    assert adapted("tip_adapter").trainable_parameters() == 0
    with pytest.raises(NotMergeable):
        model.merge()


def test_a_searched_cache_is_saved_and_restored() -> None:
    model = adapted("tip_adapter")
    cache_of(model).alpha.fill_(2.5)
    cache_of(model).keys.mul_(0.5)
    fresh = adapted("tip_adapter")
    fresh.load_adapter_state_dict(model.adapter_state_dict())
    assert torch.equal(logits(fresh, CASE), logits(model, CASE))
    with pytest.raises(PeftmarkError, match="batches="):
        adapt(CASE.anatomy(), "tip_adapter", class_names=CLASS_NAMES)


def test_clip_lora_changes_q_k_and_v_of_both_towers() -> None:
    model = adapted("clip_lora")
    blocks = len(model.anatomy.blocks), len(model.text.blocks)
    assert len(model.anatomy.log) == 3 * sum(blocks) == 3 * (6 + 3)
    with torch.no_grad():
        for insertion in model.anatomy.log:
            insertion.insert.up.normal_(std=0.1)
    plain = CASE.anatomy()
    with torch.no_grad():
        for own, block in zip(
            (*model.anatomy.blocks, *model.text.blocks), (*plain.blocks, *plain.text.blocks), strict=True
        ):
            for name in "qkv":
                delta = next(i.insert for i in model.anatomy.log if i.host is own.projections[name])
                block.projections[name].weight.add_(delta.up @ delta.down / math.sqrt(2))
    expected = adapt(plain, "zero_shot", class_names=CLASS_NAMES, templates=TEMPLATES)
    torch.testing.assert_close(logits(model, CASE), logits(expected, CASE), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("encoder", "images", "texts"), [("both", 6, 3), ("vision", 6, 0), ("text", 0, 3)])
def test_clip_lora_in_one_tower(encoder: str, images: int, texts: int) -> None:
    """As loralib/utils.py of CLIP-LoRA, apply_lora; in which order they are drawn decides a run's numbers."""
    model = adapted("clip_lora", encoder=encoder)
    hosts = [insertion.host for insertion in model.anatomy.log]
    blocks = (*model.anatomy.blocks[:images], *model.text.blocks[:texts])
    assert [id(host) for host in hosts] == [id(block.projections[name]) for block in blocks for name in "qkv"]
    assert model.text.trainable == (texts > 0)


def test_clip_lora_s_positions_are_the_official_ones() -> None:
    """loralib/utils.py, of twelve blocks; a tower with few has one at least."""
    official = {
        "bottom": (0, 1, 2, 3),
        "mid": (4, 5, 6, 7),
        "up": (8, 9, 10, 11),
        "half-bottom": (0, 1, 2, 3, 4, 5),
        "half-up": (6, 7, 8, 9, 10, 11),
        "top3": (9, 10, 11),
        "all": tuple(range(12)),
    }
    assert {position: placed(tuple(range(12)), position) for position in official} == official
    assert all(placed((0,), position) == (0,) for position in official)
    model = adapted("clip_lora", position="half-up")
    blocks = (*model.anatomy.blocks[3:], *model.text.blocks[1:])
    hosts = [block.projections[name] for block in blocks for name in "qkv"]
    assert [id(insertion.host) for insertion in model.anatomy.log] == [id(host) for host in hosts]


def by_hand(model: AdaptedModel, views: torch.Tensor, steps: int) -> torch.Tensor:
    """TPT on one image's views (V, 3, H, W), step by step -> logits (C,) of the first."""
    prompt = model.text.prompt
    context = prompt.context.detach().clone().requires_grad_(True)
    with torch.no_grad():
        f = F.normalize(model.backbone.visual(views), dim=-1)

    def all_logits() -> torch.Tensor:
        words = model.text.embed(prompt.ids)
        learned = context.expand(len(words), -1, -1)
        embedded = torch.cat((words[:, :1], learned, words[:, 1 + len(context) :]), dim=1)
        return scale(model) * f @ F.normalize(model.text.encode(embedded, prompt.ids), dim=-1).T

    p = all_logits().detach().softmax(-1)
    kept = (-(p * p.log()).sum(-1)).sort().indices[: int(0.5 * len(views))]
    m, v, decay, lr = 0.0, 0.0, 0.01, 5e-3
    for step in range(1, steps + 1):
        mean = all_logits()[kept].softmax(-1).mean(0)
        (g,) = torch.autograd.grad(-(mean * mean.log()).sum(), context)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        with torch.no_grad():
            context *= 1 - lr * decay
            context -= lr * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
    with torch.no_grad():
        return all_logits()[0]


@pytest.mark.parametrize("steps", [1, 3])
def test_tpt_is_its_steps_by_hand_and_leaves_the_model_as_it_was(steps: int) -> None:
    model = adapted("tpt", steps=steps, selected=0.5)
    views = torch.randn(2, 8, 3, 40, 40, generator=torch.Generator().manual_seed(7))
    before = copy.deepcopy(model.state_dict())
    untuned = logits(model, CASE)
    with torch.inference_mode():  # as the harness calls it
        found = model.method.predict(model, views)
    for row, image in zip(found, views, strict=True):
        torch.testing.assert_close(row, by_hand(model, image, steps), rtol=1e-4, atol=1e-4)
    assert {name: torch.equal(value, before[name]) for name, value in model.state_dict().items()} == dict.fromkeys(
        before, True
    )
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(logits(model, CASE), untuned)


def test_tpt_s_images_never_meet() -> None:
    """What is predicted of an image does not depend on the others, nor on their order."""
    model = adapted("tpt", selected=0.5)
    views = torch.randn(3, 8, 3, 40, 40, generator=torch.Generator().manual_seed(7))
    together, reversed_ = model.method.predict(model, views), model.method.predict(model, views.flip(0))
    torch.testing.assert_close(together, reversed_.flip(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together[1], model.method.predict(model, views[1:2])[0], rtol=1e-5, atol=1e-5)


def test_tpt_resets_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted("tpt")
    before = model.text.prompt.context.detach().clone()
    changed = []

    def fails_after_a_step() -> torch.Tensor:
        changed.append(not torch.equal(model.text.prompt.context, before))
        if changed[-1]:
            raise RuntimeError
        return type(model).class_features(model)

    monkeypatch.setattr(model, "class_features", fails_after_a_step)
    with pytest.raises(RuntimeError):
        model.method.predict(model, torch.randn(1, 8, 3, 40, 40))
    assert changed == [False, True]
    assert torch.equal(model.text.prompt.context, before)
