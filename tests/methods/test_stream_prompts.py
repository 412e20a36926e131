"""Prompts are put into a stream and taken out of it; dropout of them draws a mask for each image."""

from __future__ import annotations

import pytest
import torch
from by_hand import WIDTH, anatomy

from peftmark.adapting import adapt
from peftmark.methods.parts.prompts import DropPrompts, Prompts, add_prompts, without_prompts


class Given(Prompts):
    def __init__(self, tokens: torch.Tensor, at: int | None, replaced: int = 0) -> None:
        super().__init__(at, replaced)
        self.tokens = torch.nn.Parameter(tokens)

    def learned(self) -> torch.Tensor:
        return self.tokens


def rows(stream: torch.Tensor) -> list[list[float]]:
    return stream[:, :, 0].tolist()


@pytest.mark.parametrize(
    ("at", "replaced", "expected"),
    [
        (0, 0, [7, 8, 0, 1, 2, 3]),
        (1, 0, [0, 7, 8, 1, 2, 3]),
        (1, 2, [0, 7, 8, 3]),
        (1, 3, [0, 7, 8]),
        (None, 0, [0, 1, 2, 3, 7, 8]),
        (None, 2, [0, 1, 7, 8]),
    ],
)
def test_where_prompts_stand(at: int | None, replaced: int, expected: list[float]) -> None:
    stream = torch.arange(4.0).view(1, 4, 1).repeat(2, 1, 3)
    insert = Given(torch.tensor([[7.0], [8.0]]).repeat(1, 3), at, replaced)
    assert rows(insert(stream)) == [expected, expected]
    taken_out = DropPrompts(2, at)
    assert rows(taken_out(insert(stream))) == [[token for token in expected if token < 7]] * 2
    with without_prompts(torch.nn.ModuleList([insert, taken_out])):
        assert insert(stream) is stream and taken_out(stream) is stream
    assert rows(insert(stream)) == [expected, expected]


@pytest.mark.parametrize("at", [1, None])
def test_a_block_without_prompts_of_its_own_leaves_those_of_before(at: int | None) -> None:
    built = anatomy()
    seen = []
    for block in built.blocks:
        block.module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    first, third = Given(torch.ones(3, WIDTH), at), Given(torch.ones(2, WIDTH), at, replaced=3)
    add_prompts(built, [first, None, third], length=2)
    features = built.pooled(torch.zeros(1, 3, 40, 40))
    assert seen == [26, 29, 29, 28, 28, 28]  # a hook is called before a block's own prompts come
    plain = anatomy().pooled(torch.zeros(1, 3, 40, 40))
    assert features.shape == plain.shape and not torch.equal(features, plain)


LENGTHS = {"vpt_shallow": "prompt_length", "vpt_deep": "prompt_length", "gated_vpt": "prompt_length", "noah": "widths"}


@pytest.mark.parametrize("method", LENGTHS)
def test_each_image_has_a_mask_of_its_own(method: str) -> None:
    """By VPT's, gated VPT's and NOAH's code: prompts are dropped once they stand in every image's stream."""
    length = {LENGTHS[method]: (3,) if method == "noah" else 3}
    model = adapt(anatomy(), method, num_classes=3, dropout=0.25, **length).train()
    for block in model.backbone.blocks[: 1 if method in ("vpt_shallow", "gated_vpt") else None]:
        insert, images = block.slots["before"][0], 2000
        torch.manual_seed(4)
        with torch.no_grad():
            stream = insert(torch.zeros(images, 5, WIDTH))
        prompts = stream[:, 1:4]
        dropped = prompts == 0
        kept = (insert.prompts / 0.75).expand_as(prompts)
        torch.testing.assert_close(prompts[~dropped], kept[~dropped])
        assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.005)
        # entries vary from image to image at their own rate, and two images agree as often as chance has it
        assert dropped.float().mean(0).sub(0.25).abs().max() < 0.06
        agree = (dropped[0::2] == dropped[1::2]).float().mean().item()
        assert agree == pytest.approx(0.25**2 + 0.75**2, abs=0.005)
        scale = insert.prompts.abs().max()
        torch.testing.assert_close(prompts.mean(0), insert.prompts.detach(), rtol=0, atol=0.06 * scale.item())


@pytest.mark.parametrize("method", LENGTHS)
def test_nothing_is_dropped_in_evaluation_mode(method: str) -> None:
    model = adapt(anatomy(), method, num_classes=3, dropout=0.25).eval()
    insert = model.backbone.blocks[0].slots["before"][0]
    prompts = insert(torch.zeros(2, 5, WIDTH))[:, 1 : 1 + len(insert.prompts)]
    assert torch.equal(prompts, insert.prompts.expand_as(prompts))
