"""GPS: its contrastive loss, its views, and what it chooses, worked out independently."""

from __future__ import annotations

import math

import pytest
import torch
from invariants import Case
from scored import data, observer, own_gradients, prepared
from torch import nn
from torch.nn import functional as F

from peftmark.methods.parts.scoring import draw
from peftmark.methods.selective.gps import random_view, supervised_contrastive


def test_supervised_contrastive_loss_by_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    features, truth = F.normalize(torch.randn(8, 5, generator=generator), dim=1), [0, 1, 1, 2, 0, 1, 1, 2]
    total = 0.0
    for i in range(8):
        positives = [p for p in range(8) if p != i and truth[p] == truth[i]]
        below = sum(math.exp(float(features[i] @ features[a]) / 0.07) for a in range(8) if a != i)
        logs = [math.log(math.exp(float(features[i] @ features[p]) / 0.07) / below) for p in positives]
        total -= sum(logs) / len(logs)
    loss = supervised_contrastive(features, torch.tensor(truth), 0.07)
    assert loss.item() == pytest.approx(total / 8, rel=1e-5)


@pytest.mark.parametrize("track", ["image", "video", "openvocab"])
def test_gps_trains_the_largest_summed_gradient_of_each_neuron(track: str) -> None:
    case = Case("gps", track)
    model, sums, views = observer(case), {}, torch.Generator().manual_seed(0)
    for images, truth in draw(data(case), 4):
        both = torch.cat([random_view(images, views), random_view(images, views)])
        loss = supervised_contrastive(F.normalize(model.features(both), dim=1), truth.repeat(2), 0.07)
        for name, gradient in own_gradients(model, loss).items():
            sums[name] = sums.get(name, 0) + gradient
    masks = prepared(case, batch_size=4).anatomy.masks
    layers = [m for m in model.anatomy.model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    names = {id(parameter): name for name, parameter in model.anatomy.named_parameters()}
    for layer in layers:
        mask, score = masks[names[id(layer.weight)]].flatten(1), sums[names[id(layer.weight)]].abs().flatten(1)
        assert torch.equal(mask.sum(1), torch.ones(len(mask), dtype=torch.long))
        torch.testing.assert_close(score[mask], score.amax(1), rtol=1e-3, atol=1e-7)
        assert layer.bias is None or masks[names[id(layer.bias)]].all()
    assert set(masks) == {names[id(p)] for layer in layers for p in layer.parameters()}


def test_views_are_crops_and_flips_the_same_for_the_frames_of_a_clip() -> None:
    generator = torch.Generator().manual_seed(0)
    ramp = torch.arange(32.0).expand(64, 3, 32, 32)
    views = random_view(ramp, generator)
    steps = views[:, 0, 16, 8:24].diff(dim=1).mean(1)
    assert ((steps > 0).sum() - 32).abs() < 12  # flipped, as often as not
    assert steps.abs().max() <= 1 + 1e-4
    assert steps.abs().min() >= math.sqrt(0.08 * 3 / 4) - 1e-4
    assert views.min() >= 0
    assert views.max() <= 31
    assert len({round(float(step), 4) for step in steps}) > 32
    still = ramp[:4, None].expand(-1, 5, -1, -1, -1)
    frames = random_view(still, generator)
    assert all(torch.equal(frames[:, 0], frames[:, t]) for t in range(5))
