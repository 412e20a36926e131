"""SPT against a plain sweep over its threshold."""

from __future__ import annotations

import pytest
import torch
from scored import OWN, WIDTH, image_case, prepared, squares_by_hand
from torch import Tensor
from torch.nn import functional as F

from peftmark.backbones import Insert


@pytest.mark.parametrize(("keep", "vector_ratio"), [(0.005, 5.0), (0.02, 5.0), (0.05, 5.0), (0.05, 2.0)])
def test_spt_against_a_plain_sweep(keep: float, vector_ratio: float) -> None:
    """τ grows by one entry at a time; the rule for each matrix and vector is written out.

    A norm's entries train with the whole norm or not at all: there is no linear layer to take a sparse change.
    """
    case = image_case("spt")
    scores = squares_by_hand(case, 32)
    pieces: list[tuple[str, slice, int, float]] = []

    def trained(piece: int, hits: int) -> int:
        name, _, cost, threshold = pieces[piece]
        if hits >= threshold:
            return cost
        return 0 if "norm" in name else hits

    for name, score in scores.items():
        if name in ("cls_token", "pos_embed") or "patch_embed" in name:
            continue
        parts = 3 if "qkv" in name else 1
        for part in range(parts):
            length = len(score) // parts
            cost = 8 * (score.shape[1] + length) if score.dim() == 2 else length
            threshold = cost / (10 if score.dim() == 2 else vector_ratio)
            pieces.append((name, slice(part * length, (part + 1) * length), cost, threshold))
    owner = torch.cat([torch.full((scores[n][rows].numel(),), i) for i, (n, rows, _, _) in enumerate(pieces)])
    flat = torch.cat([scores[name][rows].flatten() for name, rows, _, _ in pieces])
    hits, total, tau = [0] * len(pieces), 0, 0
    for i in owner[flat.argsort(descending=True)].tolist():
        more = trained(i, hits[i] + 1) - trained(i, hits[i])
        if total + more > int(keep * OWN) - WIDTH:
            break
        hits[i], total, tau = hits[i] + 1, total + more, tau + 1
    border = flat.sort(descending=True).values[tau - 1]

    model = prepared(case, keep=keep, vector_ratio=vector_ratio)
    assert model.trainable_parameters(include_head=False) == total + WIDTH
    assert total > 0.5 * (int(keep * OWN) - WIDTH)
    kinds, norms_below = set(), 0
    for (name, rows, _, threshold), count in zip(pieces, hits, strict=True):
        mask = model.anatomy.masks.get(name)
        part = torch.zeros_like(scores[name][rows], dtype=torch.bool) if mask is None else mask[rows]
        whole = count >= threshold
        matrix = scores[name].dim() == 2
        if whole:
            assert part.all() if not matrix else not part.any()
        elif "norm" in name:
            assert not part.any()
            norms_below += count
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
    assert norms_below > 0 or vector_ratio == 5


EVERYWHERE = {"keep": 1.0, "rank": 2, "matrix_ratio": 1e6, "dropout": 0.5}


def modules(structured: str) -> dict[str, Insert]:
    """Those of the first block where every projection has one, dropping half and far from their start, by target."""
    model = prepared(image_case("spt"), structured=structured, **EVERYWHERE)
    slot, found = "delta" if structured == "lora" else "after", {}
    for target, linear in model.anatomy.blocks[0].projections.items():
        slots = linear.module.slots["rows"] if structured == "lora" or linear.rows else [linear.module.slots]
        start = linear.rows[0] // WIDTH if linear.rows else 0
        found[target] = slots[start][slot][0].train()
        for parameter in found[target].parameters():
            torch.nn.init.normal_(parameter)
    assert found.keys() == {"q", "k", "v", "proj", "fc1", "fc2"}
    return found


def dropped(x: Tensor, target: str) -> Tensor:
    """The input of every module but proj's, by the next random numbers."""
    return x if target == "proj" else F.dropout(x, 0.5)


def test_low_rank_updates_drop_their_input_but_for_proj_s() -> None:
    for target, insert in modules("lora").items():
        x = torch.randn(2, 5, insert.down.shape[1])
        torch.manual_seed(0)
        expected = dropped(x, target) @ insert.down.T @ insert.up.T
        torch.manual_seed(0)
        torch.testing.assert_close(insert(x, torch.empty(0)), expected, rtol=1e-4, atol=1e-4)


def test_adapters_drop_their_input_but_for_proj_s_and_no_hidden_unit() -> None:
    for target, insert in modules("adapter").items():
        x = torch.randn(2, 5, insert.down.in_features)
        torch.manual_seed(0)
        hidden = F.gelu(dropped(x, target) @ insert.down.weight.T + insert.down.bias)
        expected = x + hidden @ insert.up.weight.T + insert.up.bias
        torch.manual_seed(0)
        torch.testing.assert_close(insert(x), expected, rtol=1e-4, atol=1e-4)


def test_an_adapter_beside_the_attention_s_projection() -> None:
    """SPT's AttentionSPTSeq: proj(x) + up(gelu(down(x))) of what proj reads, nothing dropped; as many parameters."""
    models = [
        prepared(image_case("spt"), structured="adapter", proj_adapter=place, **EVERYWHERE)
        for place in ("beside", "after")
    ]
    model, other = models
    assert model.trainable_parameters() == other.trainable_parameters()
    proj = model.backbone.blocks[0].attn.proj.train()
    assert not len(proj.slots["after"])
    [rows] = proj.slots["rows"]
    [adapter] = rows["delta"]
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 5, WIDTH)
    hidden = F.gelu(x @ adapter.down.weight.T + adapter.down.bias)
    expected = x @ proj.weight.T + proj.bias + hidden @ adapter.up.weight.T + adapter.up.bias
    torch.testing.assert_close(proj(x), expected, rtol=1e-4, atol=1e-4)
    qkv = model.backbone.blocks[0].attn.qkv
    assert all(len(rows["after"]) == 1 for rows in qkv.slots["rows"])  # the others stand where they stood
    assert not model.anatomy.mergeable
