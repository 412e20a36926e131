"""Methods that score parameters on data: what they choose, worked out independently; that scoring leaves no trace."""

from __future__ import annotations

import pytest
import torch
from invariants import Case, labels
from scored import (
    BLOCKS,
    CLASSES,
    FFN,
    HEAD,
    HEADS,
    OWN,
    SCORING,
    WIDTH,
    assert_largest,
    data,
    image_case,
    observer,
    own_gradients,
    prepared,
    squares_by_hand,
    unprepared,
)
from torch.nn import functional as F

from peftmark.adapting import adapt
from peftmark.backbones import find_backbone
from peftmark.errors import PeftmarkError, Unsupported
from peftmark.methods import make_method
from peftmark.methods.parts.scoring import draw, top_entries

COUNTS = {
    ("fish_mask", ()): int(0.005 * (OWN + HEAD)) - HEAD,
    ("fish_mask", (("keep", 0.02), ("samples", 2))): int(0.02 * (OWN + HEAD)) - HEAD,
    ("magnitude_mask", ()): int(0.005 * (OWN + HEAD)) - HEAD,
    ("magnitude_mask", (("keep", 0.01), ("steps", 2))): int(0.01 * (OWN + HEAD)) - HEAD,
    ("diff_pruning", ()): int(0.005 * (OWN + HEAD)) - HEAD,
    ("diff_pruning", (("keep", 0.01), ("structured", False))): int(0.01 * (OWN + HEAD)) - HEAD,
    # q, k and v rows with biases, proj columns: d = 32; round(.05 · 24) heads
    ("head_mask", ()): 4 * 32 * WIDTH + 3 * 32,
    ("head_mask", (("keep", 0.25), ("score", "magnitude"))): 6 * (4 * 32 * WIDTH + 3 * 32),
    # fc1 row with bias, fc2 column; round(.02 · 3072) nodes
    ("ffn_mask", ()): 61 * (2 * WIDTH + 1),
    ("ffn_mask", (("keep", 0.5), ("score", "magnitude"))): 1536 * (2 * WIDTH + 1),
    # an entry and a bias for each neuron of the blocks, an entry for each of the patch embedding, which has no bias
    ("gps", ()): BLOCKS * 2 * (4 * WIDTH + FFN + WIDTH) + WIDTH,
    ("gps", (("connections", 3),)): BLOCKS * 4 * (4 * WIDTH + FFN + WIDTH) + 3 * WIDTH,
    # all projections by LoRA: rank·(in + out); every bias and norm whole; the class token
    ("spt", (("keep", 1.0), ("rank", 2))): BLOCKS * 2 * (4 * 2 * WIDTH + 2 * (WIDTH + FFN))
    + BLOCKS * (4 * WIDTH + FFN + WIDTH)
    + (2 * BLOCKS + 2) * 2 * WIDTH
    + WIDTH,
    # as adapters: 2·rank·out + rank + out
    ("spt", (("keep", 1.0), ("rank", 2), ("structured", "adapter"))): BLOCKS * (5 * (5 * WIDTH + 2) + 5 * FFN + 2)
    + BLOCKS * (4 * WIDTH + FFN + WIDTH)
    + (2 * BLOCKS + 2) * 2 * WIDTH
    + WIDTH,
}
VIT_B16 = {
    # of backbone and head (100 classes): .005 · (85,798,656 + 76,900), less the head
    "fish_mask": 429_377 - 76_900,
    # one weight and one bias for each neuron
    "gps": 167_424,
    # 7 of 144 heads of 64: q, k, v rows and biases, proj columns
    "head_mask": 7 * (4 * 64 * 768 + 3 * 64),
    # 737 of 36,864 nodes
    "ffn_mask": 737 * (2 * 768 + 1),
}


@pytest.mark.parametrize(("key", "count"), COUNTS.items(), ids=str)
def test_counts(key: tuple[str, tuple[tuple[str, object], ...]], count: int) -> None:
    model = prepared(image_case(key[0]), **dict(key[1]))
    assert sum(parameter.numel() for _, parameter in model.anatomy.named_parameters()) == OWN
    assert sum(parameter.numel() for parameter in model.head_parameters()) == HEAD
    assert model.trainable_parameters(include_head=False) == count


def test_every_scoring_method_is_counted() -> None:
    assert {name for name, _ in COUNTS} == {case.method for case in SCORING}


def test_the_largest_entries_of_all_parameters_together() -> None:
    """Of equal ones at the edge the first; a score of 0 never, however few the others are."""
    scores = {"a": torch.tensor([1.0, 2.0, 2.0]), "b": torch.tensor([[2.0, 0.0], [3.0, 0.0]])}
    for k, chosen in (
        (1, [0, 0, 0, 0, 0, 1, 0]),
        (2, [0, 1, 0, 0, 0, 1, 0]),
        (4, [0, 1, 1, 1, 0, 1, 0]),
        (5, [1, 1, 1, 1, 0, 1, 0]),
        (7, [1, 1, 1, 1, 0, 1, 0]),
        (9, [1, 1, 1, 1, 0, 1, 0]),
    ):
        masks = top_entries(scores, k)
        assert {name: mask.shape for name, mask in masks.items()} == {"a": (3,), "b": (2, 2)}
        assert torch.cat([mask.flatten() for mask in masks.values()]).int().tolist() == chosen, k


@pytest.mark.usefixtures("gigabytes")
@pytest.mark.parametrize(("method", "count"), VIT_B16.items())
def test_counts_on_vit_b16(method: str, count: int) -> None:
    torch.manual_seed(0)
    batches = [(torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 5]))]
    # made anew, not copied: with its gradients and their scores it takes more than a gigabyte
    model = adapt("vit_base_patch16_224", method, num_classes=100, pretrained=False, batches=batches)
    assert model.trainable_parameters(include_head=False) == count


@pytest.mark.parametrize("track", ["image", "video", "openvocab"])
def test_fish_mask_is_the_largest_per_sample_fisher(track: str) -> None:
    case = Case("fish_mask", track)
    scores = squares_by_hand(case, 1)
    everything = sum(score.numel() for score in scores.values())
    head = 0 if track == "openvocab" else HEAD
    assert_largest(prepared(case).anatomy.masks, scores, int(0.005 * (everything + head)) - head)


def test_fish_mask_looks_at_so_many_samples() -> None:
    case, sums, model = image_case(), {}, observer(image_case())
    for images, truth in list(draw(data(case), 1))[:2]:
        for name, gradient in own_gradients(model, F.cross_entropy(model(images), truth)).items():
            sums[name] = sums.get(name, 0) + gradient**2
    assert_largest(prepared(case, samples=2).anatomy.masks, sums, COUNTS["fish_mask", ()])


def test_magnitude_mask_trains_sums_magnitudes_and_rewinds() -> None:
    case = image_case("magnitude_mask")
    model, sums = observer(case), {}
    orders = [batch for epoch in range(2) for batch in draw(data(case), 4, seed=epoch)][:3]
    for images, truth in orders:
        for name, gradient in own_gradients(model, F.cross_entropy(model(images), truth)).items():
            sums[name] = sums.get(name, 0) + gradient.abs()
        torch.optim.SGD(model.parameters(), lr=0.05).step()
    model = prepared(case, steps=3, batch_size=4, learning_rate=0.05)
    assert_largest(model.anatomy.masks, sums, COUNTS["magnitude_mask", ()])
    still = prepared(case, steps=3, batch_size=4, learning_rate=0)
    assert any(
        not torch.equal(mask, still.anatomy.masks.get(name, ~mask)) for name, mask in model.anatomy.masks.items()
    )


def test_head_mask_trains_whole_heads() -> None:
    case = image_case("head_mask")
    scores = squares_by_hand(case, 32)
    values = {}
    for block in range(BLOCKS):
        qkv, bias = scores[f"blocks.{block}.attn.qkv.weight"], scores[f"blocks.{block}.attn.qkv.bias"]
        proj = scores[f"blocks.{block}.attn.proj.weight"]
        for head in range(HEADS):
            rows = [part * 128 + head * 32 + i for part in range(3) for i in range(32)]
            values[block, head] = qkv[rows].sum() + bias[rows].sum() + proj[:, head * 32 : head * 32 + 32].sum()
    best = sorted(values, key=lambda key: -values[key])[:3]
    model = prepared(case, keep=3 / 24)
    expected = {name: torch.zeros_like(score, dtype=torch.bool) for name, score in scores.items()}
    for block, head in best:
        rows = [part * 128 + head * 32 + i for part in range(3) for i in range(32)]
        expected[f"blocks.{block}.attn.qkv.weight"][rows] = True
        expected[f"blocks.{block}.attn.qkv.bias"][rows] = True
        expected[f"blocks.{block}.attn.proj.weight"][:, head * 32 : head * 32 + 32] = True
    assert set(model.anatomy.masks) == {name for name, mask in expected.items() if mask.any()}
    assert all(torch.equal(mask, expected[name]) for name, mask in model.anatomy.masks.items())


@pytest.mark.parametrize("score", ["gradient", "magnitude"])
def test_ffn_mask_trains_whole_nodes(score: str) -> None:
    case = Case("ffn_mask", "openvocab")
    model = prepared(case, score=score)
    own = dict(case.anatomy().named_parameters())
    scores = squares_by_hand(case, 32) if score == "gradient" else {name: p.detach() ** 2 for name, p in own.items()}
    mlps = sorted({name.rsplit(".", 2)[0] for name in scores if "mlp" in name})
    values = torch.stack(
        [
            scores[f"{m}.c_fc.weight"].sum(1) + scores[f"{m}.c_fc.bias"] + scores[f"{m}.c_proj.weight"].sum(0)
            for m in mlps
        ]
    )
    chosen = torch.zeros(values.numel(), dtype=torch.bool)
    chosen[values.flatten().topk(61).indices] = True
    count = 0
    for mlp, nodes in zip(mlps, chosen.view_as(values), strict=True):
        if nodes.any():
            assert torch.equal(model.anatomy.masks[f"{mlp}.c_fc.weight"], nodes[:, None].expand(-1, WIDTH))
            assert torch.equal(model.anatomy.masks[f"{mlp}.c_fc.bias"], nodes)
            assert torch.equal(model.anatomy.masks[f"{mlp}.c_proj.weight"], nodes[None].expand(WIDTH, -1))
            count += 3
    assert len(model.anatomy.masks) == count > 3


@pytest.mark.parametrize("case", SCORING, ids=lambda case: f"{case.method}-{case.track}")
def test_scoring_leaves_no_trace(case: Case) -> None:
    """Modes, gradients, flags, weights, and (but for modules that are made) the random numbers to come."""
    model = unprepared(case)
    model.train()
    model.anatomy.norm.module.eval()  # some mixture of modes
    first = next(parameter for parameter in model.parameters() if not parameter.requires_grad)
    first.grad = torch.ones_like(first)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    torch.manual_seed(3)
    model.method.prepare(model, data(case))
    if case.method != "spt":
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(3)))
    assert {name: module.training for name, module in model.named_modules() if name in modes} == modes
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(p.grad is None for p in model.parameters() if p is not first)
    masks = model.entry_masks()
    assert masks
    for name, parameter in model.named_parameters():
        if name in flags and name not in masks:
            assert parameter.requires_grad == flags[name], name
    if case.method != "diff_pruning":
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_running_statistics_stay_as_they_were() -> None:
    torch.manual_seed(0)
    for method in ("fish_mask", "magnitude_mask", "gps", "diff_pruning"):
        bare = find_backbone("test_resnet").build(pretrained=False)
        buffers = {name: value.clone() for name, value in bare.model.named_buffers()}
        batches = [(torch.randn(4, 3, 96, 96), torch.tensor([0, 1, 2, 0]))]
        model = adapt(bare, method, num_classes=3, batches=batches)
        assert buffers
        assert all(torch.equal(value, buffers[name]) for name, value in model.backbone.named_buffers())


@pytest.mark.parametrize("case", SCORING, ids=lambda case: f"{case.method}-{case.track}")
def test_masks_are_bit_stable(case: Case) -> None:
    """Whatever the global random numbers, and however the data is cut into batches."""
    first = prepared(case).anatomy.masks
    model = unprepared(case)
    torch.manual_seed(99)
    model.method.prepare(
        model, [(image[None], label[None]) for image, label in zip(case.images(), labels(), strict=True)]
    )
    assert first.keys() == model.anatomy.masks.keys()
    assert all(torch.equal(mask, model.anatomy.masks[name]) for name, mask in first.items())


@pytest.mark.parametrize("method", sorted({case.method for case in SCORING}))
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_entries_that_were_not_chosen_stay_bit_identical(method: str, kind: str) -> None:
    """Under decay and momentum, after a change of precision, and after other weights were loaded."""
    case = image_case(method)
    model = prepared(case).eval()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if kind == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.5)
    else:
        optimizer = torch.optim.SGD(trained, lr=1e-2, weight_decay=0.5, momentum=0.9)

    def steps() -> None:
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        for _ in range(2):
            optimizer.zero_grad()
            images = case.images().to(next(model.parameters()).dtype)
            F.cross_entropy(model(images), labels()).backward()
            model.optimizer_step(optimizer)
        own = dict(model.named_parameters())
        for name, mask in model.entry_masks().items():
            assert torch.equal(own[name][~mask], before[name][~mask])
            assert not own[name].grad[~mask].any()  # nothing for an optimizer that looks at a whole tensor
            assert (own[name][mask] != before[name][mask]).float().mean() > 0.9

    steps()
    with torch.no_grad():
        model.load_state_dict({name: value * 1.01 for name, value in model.state_dict().items()})
    steps()
    model.double()
    optimizer.state.clear()
    steps()


def test_masks_go_where_the_model_goes() -> None:
    model = prepared(image_case())
    model.to("meta")
    assert all(mask.device.type == "meta" for mask in model.anatomy.masks.values())


def test_an_adapter_says_itself_which_entries_train() -> None:
    """It loads onto a model that never saw data, and onto one whose own masks were others."""
    case = image_case()
    model = prepared(case)
    trained = [p for p in model.parameters() if p.requires_grad]
    F.cross_entropy(model(case.images()), labels()).backward()
    model.optimizer_step(torch.optim.SGD(trained, lr=0.1))
    state = model.adapter_state_dict()
    linear = unprepared(Case("linear", "image"))
    other = prepared(case, keep=0.01, samples=1)
    for loaded in (linear, other):
        loaded.load_adapter_state_dict(state)
        images = case.images()
        assert torch.equal(loaded.eval()(images), model.eval()(images))
        assert loaded.trainable_parameters() == model.trainable_parameters()
        names = {name for name, p in loaded.named_parameters() if p.requires_grad}
        assert names == {name for name, p in model.named_parameters() if p.requires_grad}


def test_data_is_drawn_once_in_a_fixed_order() -> None:
    images, truth = torch.arange(10.0).view(10, 1), torch.arange(10)
    batches = list(zip(images.split(4), truth.split(4), strict=True))
    drawn = list(draw(batches, 3))
    assert [len(part) for _, part in drawn] == [3, 3, 3, 1]
    order = torch.cat([part for _, part in drawn])
    assert sorted(order.tolist()) == list(range(10)) != order.tolist()
    assert torch.equal(torch.cat([part for part, _ in drawn]).flatten(), order.float())
    assert torch.equal(torch.cat([part for _, part in draw(iter(batches), 3, count=2)]), order[:6])
    assert not torch.equal(torch.cat([part for _, part in draw(batches, 3, seed=1)]), order)


@pytest.mark.parametrize("method", sorted({case.method for case in SCORING}))
def test_without_data_or_with_none_in_it_the_error_says_so(method: str) -> None:
    with pytest.raises(PeftmarkError, match="batches="):
        adapt(image_case().anatomy(), method, num_classes=CLASSES)
    with pytest.raises(PeftmarkError, match="no training images"):
        adapt(image_case().anatomy(), method, num_classes=CLASSES, batches=[])


def test_a_head_larger_than_the_budget_is_unsupported() -> None:
    for method in ("fish_mask", "magnitude_mask", "diff_pruning"):
        with pytest.raises(Unsupported, match="leaves none beside the head"):
            adapt(image_case().anatomy(), method, num_classes=100, batches=data(image_case()))


@pytest.mark.parametrize("method", ["head_mask", "ffn_mask", "spt", "partial", "attention_only"])
def test_a_convolutional_backbone_is_refused_before_scoring(method: str) -> None:
    with pytest.raises(Unsupported, match="test_resnet has no transformer blocks"):
        adapt("test_resnet", method, num_classes=3, pretrained=False, batches=iter(()))


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("partial", {"k": 0}),
        ("fish_mask", {"keep": 0}),
        ("fish_mask", {"keep": 1.5}),
        ("fish_mask", {"samples": 0}),
        ("magnitude_mask", {"steps": 0}),
        ("magnitude_mask", {"learning_rate": -1.0}),
        ("head_mask", {"keep": -0.1}),
        ("head_mask", {"score": "taste"}),
        ("ffn_mask", {"keep": 2.0}),
        ("gps", {"connections": 0}),
        ("gps", {"temperature": 0.0}),
        ("spt", {"rank": 0}),
        ("spt", {"matrix_ratio": 0.5}),
        ("spt", {"structured": "prompt"}),
        ("diff_pruning", {"epochs": 0}),
        ("diff_pruning", {"penalty": -1.0}),
        ("frame_mean", {"image_method": "fish_mask"}),
    ],
)
def test_bad_hyper_parameters(method: str, config: dict[str, object]) -> None:
    with pytest.raises(PeftmarkError, match=method):
        make_method(method, config)


def test_partial_and_attention_only_choose_these_tensors() -> None:
    def trained(method: str, **config: object) -> set[str]:
        model = adapt(image_case().anatomy(), method, num_classes=3, **config)
        return {name for name, parameter in model.backbone.named_parameters() if parameter.requires_grad}

    names = {name for name, _ in image_case().anatomy().named_parameters()}
    last = {name for name in names if name.startswith(("blocks.4.", "blocks.5.", "norm."))}
    assert trained("partial", k=2) == last
    assert trained("attention_only") == {name for name in names if ".attn." in name}
    with pytest.raises(Unsupported, match="6 blocks"):
        trained("partial", k=7)
