"""Dropout of prompts draws a mask for each image."""

from __future__ import annotations

import pytest
import torch
from by_hand import WIDTH, anatomy

from peftmark.methods import adapt

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
