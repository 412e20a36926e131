"""SPT against a plain sweep over its threshold."""

from __future__ import annotations

import pytest
import torch
from scored import OWN, WIDTH, image_case, prepared, squares_by_hand


@pytest.mark.parametrize("keep", [0.005, 0.02, 0.05])
def test_spt_against_a_plain_sweep(keep: float) -> None:
    """τ grows by one entry at a time; the rule for each matrix and vector is written out."""
    case = image_case("spt")
    scores = squares_by_hand(case, 32)
    pieces: list[tuple[str, slice, int, float]] = []
    for name, score in scores.items():
        if name in ("cls_token", "pos_embed") or "patch_embed" in name:
            continue
        parts = 3 if "qkv" in name else 1
        for part in range(parts):
            length = len(score) // parts
            cost = 8 * (score.shape[1] + length) if score.dim() == 2 else length
            threshold = cost / (10 if score.dim() == 2 else 5)
            pieces.append((name, slice(part * length, (part + 1) * length), cost, threshold))
    owner = torch.cat([torch.full((scores[n][rows].numel(),), i) for i, (n, rows, _, _) in enumerate(pieces)])
    flat = torch.cat([scores[name][rows].flatten() for name, rows, _, _ in pieces])
    hits, total, tau = [0] * len(pieces), 0, 0
    for i in owner[flat.argsort(descending=True)].tolist():
        _, _, cost, threshold = pieces[i]
        before = cost if hits[i] >= threshold else hits[i]
        after = cost if hits[i] + 1 >= threshold else hits[i] + 1
        if total + after - before > int(keep * OWN) - WIDTH:
            break
        hits[i], total, tau = hits[i] + 1, total + after - before, tau + 1
    border = flat.sort(descending=True).values[tau - 1]

    model = prepared(case, keep=keep)
    assert model.trainable_parameters(include_head=False) == total + WIDTH
    assert total > 0.5 * (int(keep * OWN) - WIDTH)
    kinds = set()
    for (name, rows, _, threshold), count in zip(pieces, hits, strict=True):
        mask = model.anatomy.masks.get(name)
        part = torch.zeros_like(scores[name][rows], dtype=torch.bool) if mask is None else mask[rows]
        whole = count >= threshold
        matrix = scores[name].dim() == 2
        if whole:
            assert part.all() if not matrix else not part.any()
        else:
            assert torch.equal(part, scores[name][rows] >= border)
        linear = model.backbone.get_submodule(name.rpartition(".")[0])
        inserted = [tuple(r) for r in getattr(linear, "row_ranges", [])]
        if matrix:
            assert ((rows.start, rows.stop) in inserted) == whole
        kinds.add((matrix, whole))
    assert model.backbone.cls_token.requires_grad
    assert not model.backbone.pos_embed.requires_grad
    assert len(kinds) == 4 or keep < 0.02
