"""Diff pruning: its gates, its penalty and its search, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from invariants import labels
from scored import OWN, data, image_case, observer, own_gradients, prepared, unprepared
from torch import Tensor, nn
from torch.nn import functional as F

from peftmark.errors import Unsupported
from peftmark.methods.parts.scoring import draw
from peftmark.methods.selective.diff_pruning import hard_concrete


def test_hard_concrete_gates() -> None:
    logits = torch.tensor([-5.0, -0.5, 0.2, 0.5, 5.0], requires_grad=True)
    gates = hard_concrete(logits)
    expected = [min(max(3 / (1 + math.exp(-x)) - 1.5, 0), 1) for x in logits.tolist()]
    torch.testing.assert_close(gates, torch.tensor(expected))
    gates.sum().backward()
    assert [bool(g) for g in logits.grad] == [False, False, True, True, False]
    many = torch.zeros(100_000)
    sample = hard_concrete(many, torch.Generator().manual_seed(0))
    # u below 1/2 closes the gate, u above 5/6 opens it wholly
    assert (sample == 0).float().mean().item() == pytest.approx(1 / 2, abs=0.01)
    assert (sample == 1).float().mean().item() == pytest.approx(1 / 6, abs=0.01)


def test_diff_pruning_starts_training_from_the_pruned_change() -> None:
    """After one Adam step the change is −rate · sign(gradient), times gates that are open."""
    case = image_case("diff_pruning")
    bare = observer(case)
    gradients = own_gradients(bare, F.cross_entropy(bare(case.images()), labels()))
    model = prepared(case, epochs=1, batch_size=6, gate_init=20.0, penalty=0.0, learning_rate=1e-5)
    before = dict(bare.anatomy.named_parameters())
    for name, parameter in model.anatomy.named_parameters():
        mask = model.anatomy.masks.get(name, torch.zeros_like(parameter, dtype=torch.bool))
        assert torch.equal(parameter[~mask], before[name][~mask])
        change = (parameter - before[name])[mask]
        assert (change.abs() <= 1.2e-5).all()  # the rate, and the rounding of a weight
        large = before[name][mask].abs() < 1  # where adding 1e-5 is not rounded away
        assert torch.equal(change[large].sign(), -gradients[name][mask][large].sign())
    assert not torch.equal(model.head.weight, bare.head.weight)


def test_diff_pruning_s_search_by_hand() -> None:
    """Two steps, the chain rule through weights and gates written out (as the official code does)."""
    rate, gate_rate, penalty = 1e-2, 0.1, 1e-4
    case, noise = image_case("diff_pruning"), torch.Generator().manual_seed(0)
    bare = observer(case)
    own = dict(bare.anatomy.named_parameters())
    start = {name: p.detach().clone() for name, p in own.items()}
    diffs = {name: torch.zeros_like(p) for name, p in start.items()}
    gates = {name: torch.full_like(p, 0.5) for name, p in start.items()}
    groups = {name: torch.full((1,), 0.5) for name in start}
    weights, logits = [*diffs.values(), *bare.head.parameters()], [*gates.values(), *groups.values()]
    optimizers = [torch.optim.Adam(weights, lr=rate), torch.optim.Adam(logits, lr=gate_rate)]

    def sample(values: Tensor) -> tuple[Tensor, Tensor]:
        u = torch.rand(values.shape, generator=noise).clamp(1e-4, 1 - 1e-4)
        s = torch.sigmoid(values + u.log() - (1 - u).log())
        z = 3 * s - 1.5
        return z.clamp(0, 1), 3 * s * (1 - s) * ((z > 0) & (z < 1))

    for step, (images, truth) in enumerate(draw(data(case), 3)):
        samples = {name: (*sample(gates[name]), *sample(groups[name])) for name in start}
        with torch.no_grad():
            for name, (z, _, of_group, _) in samples.items():
                own[name].copy_(start[name] + of_group * z * diffs[name])
        found = own_gradients(bare, F.cross_entropy(bare(images), truth))
        for name, (z, slope, of_group, group_slope) in samples.items():
            open_ones, group_open = gates[name].sigmoid(), groups[name].sigmoid()
            diffs[name].grad = found[name] * of_group * z
            gates[name].grad = found[name] * diffs[name] * of_group * slope
            gates[name].grad += penalty * group_open * open_ones * (1 - open_ones)
            groups[name].grad = (found[name] * diffs[name] * z).sum() * group_slope
            groups[name].grad += penalty * open_ones.sum() * group_open * (1 - group_open)
        nn.utils.clip_grad_norm_(weights, 1.0)
        nn.utils.clip_grad_norm_(logits, 1.0)
        for optimizer, of in zip(optimizers, (rate, gate_rate), strict=True):
            optimizer.param_groups[0]["lr"] = of * (1 - step / 2)
            optimizer.step()

    change = {
        name: (3 * gates[name].sigmoid() - 1.5).clamp(0, 1) * (3 * groups[name].sigmoid() - 1.5).clamp(0, 1) * w
        for name, w in diffs.items()
    }
    model = prepared(
        case, epochs=1, batch_size=3, gate_init=0.5, gate_rate=gate_rate, learning_rate=rate, penalty=penalty, keep=0.05
    )
    after = dict(model.anatomy.named_parameters())
    masks = model.anatomy.masks
    got = torch.cat([(after[name] - start[name])[mask] for name, mask in masks.items()])
    expected = torch.cat([change[name][mask] for name, mask in masks.items()])
    assert len(got) > 10_000
    assert torch.isclose(got, expected, rtol=1e-2, atol=1e-6).float().mean() > 0.99
    flat = torch.cat([value.flatten() for value in change.values()]).abs()
    assert (expected.abs() >= flat.topk(len(got)).values[-1] * 0.99).float().mean() > 0.99
    torch.testing.assert_close(model.head.weight, bare.head.weight, rtol=1e-3, atol=1e-4)


def test_diff_pruning_s_penalty_closes_gates() -> None:
    case = image_case("diff_pruning")
    free = prepared(case, penalty=0.0, gate_init=1.0, gate_rate=0.5, keep=0.5, structured=False, epochs=2)
    assert free.trainable_parameters(include_head=False) > 0.3 * OWN
    for structured in (False, True):
        with pytest.raises(Unsupported, match="no parameter entry"):
            prepared(case, penalty=1.0, gate_init=1.0, gate_rate=0.5, epochs=4, structured=structured)
    model = unprepared(case)
    logits, group = torch.tensor([0.0, 2.0]), torch.tensor([1.0])
    share = [[1 / (1 + math.exp(-x)) for x in values] for values in ([0.0, 2.0], [1.0])]
    expected = model.method._expected_entries({"a": logits}, {"a": group})
    assert expected.item() == pytest.approx(sum(share[0]) * share[1][0], rel=1e-5)
