"""Sensitivity-aware parameter-efficient tuning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones import Affine, Anatomy, Insert, WeightDelta
from ...errors import PeftmarkError
from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..method import Batches
from ..parts.bottleneck import Bottleneck
from ..parts.low_rank import LowRank
from ..parts.scoring import draw, squared_gradients
from ..ranges import Count, Rate, Share
from ..scoring_method import Scores, ScoringMethod, Selection

CLASS_TOKENS = ("cls_token", "class_embedding")


class InputDropAdapter(Bottleneck):
    """``x + up(gelu(down(dropout(x))))``, down Kaiming-uniform, up zero; (…, D) -> (…, D)."""

    def __init__(self, width: int, rank: int, dropout: float) -> None:
        super().__init__(width, rank, "gelu", dropout=0.0)
        self.input_dropout = nn.Dropout(dropout)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(self.input_dropout(x))


class BesideProjection(WeightDelta):
    """``up(gelu(down(x)))`` of a linear map's input x (…, in), added to its output; down Kaiming-uniform, up zero."""

    fold_into = Insert.fold_into  # it is no linear map

    def __init__(self, in_features: int, out_features: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(in_features, rank)
        self.up = nn.Linear(rank, out_features)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for tensor in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.up(F.gelu(self.down(x)))


@dataclass
class Piece:
    """A projection's weight, or a vector: what is tuned as a whole where enough of its entries are sensitive.

    Attributes:
        name, rows: the parameter and the part of its first dimension that is meant.
        linear: the projection, whose weight gets a module; None for a vector, which then trains whole.
        cost: parameters that train then. threshold: sensitive entries that this takes.
        entries: whether sensitive entries train where they are fewer; the whole stays frozen else.
        dropout: of what the module reads. beside: whether it stands beside the projection, not behind it.
    """

    name: str
    rows: slice
    linear: Affine | None
    cost: int
    threshold: float
    entries: bool = True
    dropout: float = 0.0
    beside: bool = False


@METHODS.register("spt", family="selective", tracks=("image", "openvocab", "video"))
@dataclass
class SPT(ScoringMethod):
    """Tune where the loss is sensitive, whole matrices or single entries (He et al. 2023, arXiv:2303.08566).

    The sensitivity of an entry is ``Σ_batches (∂CE/∂θ)²`` of the mean over 32 images, over `score_batches` batches.
    The τ most sensitive entries of all blocks and norms are marked. A projection (q, k, v, proj, fc1, fc2) with at
    least cost/`matrix_ratio` marks, cost being its module's parameters, gets the module (``lora``: rank·(in + out), no
    scale; ``adapter``: a GELU bottleneck with skip on its output, 2·rank·out + rank + out); in others the marked
    entries train. What a module reads is dropped with probability `dropout`, but for proj's. A bias or norm with at
    least length/`vector_ratio` marks trains whole; with fewer, a projection's bias trains the marked entries, and a
    norm (any vector that is no projection's bias) nothing: the official code puts sparse changes in place of linear
    layers only, so marks on a norm are never trained ("doesn't affect the performance much", says its comment), and the
    paper's rule is for weight matrices. The class token always trains, patch and position embeddings never.

    `keep` is the budget, as a share of the backbone's parameters, class token included, head not: τ is the largest with
    which no more trains (428,993 on ViT-B/16 by default; the count never falls as τ grows, so τ is found by halving).
    The official code (engine.py) tries τ in steps of 20,000 and takes the nearest count, perhaps above the budget, in
    which it has the marks on norms, too; its scoring runs in training mode. It keeps a zero-initialised change of each
    marked entry beside the weight: the same function, except that decay pulls the change to zero, and here the entry.
    Its ``init_weights`` undoes the zeros of the modules; here they hold. Its drop path of .1 on the modules is left
    out; LoRA's q, k and v of a block have one mask there, here one each.

    `proj_adapter`: an ``adapter`` of the attention's proj stands ``after`` it, as the others after theirs. The official
    code (AttentionSPTSeq) has it ``beside``: the module reads the projection's input and its output is added to the
    projection's, without a skip of its own.
    """

    version: ClassVar[int] = 2

    keep: Share = 0.005
    rank: Count = 8
    structured: Literal["lora", "adapter"] = "lora"
    dropout: Rate = 0.1
    matrix_ratio: Annotated[float, Meta(ge=1)] = 10.0
    vector_ratio: Annotated[float, Meta(ge=1)] = 5.0
    score_batches: Count = 16
    proj_adapter: Literal["after", "beside"] = "after"

    def adapt(self, anatomy: Anatomy) -> None:
        _ = anatomy.blocks  # a backbone without them is refused before any scoring
        for name, parameter in anatomy.named_parameters():
            if name in CLASS_TOKENS:
                parameter.requires_grad_(True)

    def scores_of(self, model: AdaptedModel, batches: Batches) -> Scores:
        return squared_gradients(model, draw(batches, size=32, count=self.score_batches))

    def choose(self, model: AdaptedModel, scores: Scores) -> Selection:
        """The marked entries."""
        anatomy, pieces = model.anatomy, self.pieces(model.anatomy)
        flat = torch.cat([scores[piece.name][piece.rows].flatten() for piece in pieces])
        sizes = [scores[piece.name][piece.rows].numel() for piece in pieces]
        owner = torch.repeat_interleave(torch.arange(len(pieces)), torch.tensor(sizes)).to(flat.device)
        everything = sum(parameter.numel() for _, parameter in anatomy.named_parameters())
        tokens = sum(p.numel() for name, p in anatomy.named_parameters() if name in CLASS_TOKENS)
        order = flat.argsort(descending=True)[: int((flat > 0).sum())]
        tau = _largest_within(int(self.keep * everything) - tokens, owner[order], pieces)
        marked = torch.zeros_like(flat, dtype=torch.bool)
        marked[order[:tau]] = True
        masks = {piece.name: torch.zeros_like(scores[piece.name], dtype=torch.bool) for piece in pieces}
        for piece, marks in zip(pieces, marked.split(sizes), strict=True):
            part = masks[piece.name][piece.rows]
            part.copy_(marks.view_as(part))
        return masks

    def take(self, model: AdaptedModel, selection: Selection) -> None:
        """Tune pieces by the marked entries in `selection`.

        Raises:
            PeftmarkError: where an entry is marked that is in no piece.
        """
        anatomy, pieces = model.anatomy, self.pieces(model.anatomy)
        for name in selection.keys() - {piece.name for piece in pieces}:
            if bool(selection[name].any()):
                raise PeftmarkError(f"selection: spt chooses among blocks and norms, of which {name!r} is none")
        masks = {name: torch.zeros_like(mask) for name, mask in selection.items()}
        for piece in pieces:
            if piece.name not in selection:
                continue
            marks, part = (tensors[piece.name][piece.rows] for tensors in (selection, masks))
            if int(marks.sum()) < piece.threshold:
                part.copy_(marks & piece.entries)
            elif piece.linear is None:
                part.fill_(True)
            else:
                self._add_module(piece.linear, piece)
        if any(bool(mask.any()) for mask in masks.values()):
            anatomy.train_entries(masks)

    def selection(self, model: AdaptedModel) -> Selection:
        """What trains; of a projection that holds a module, all entries."""
        masks = {name: mask.clone() for name, mask in model.anatomy.masks.items()}
        own, hosts = dict(model.anatomy.named_parameters()), {id(each.host) for each in model.anatomy.log}
        for piece in self.pieces(model.anatomy):
            if id(piece.linear) in hosts:
                masks.setdefault(piece.name, torch.zeros_like(own[piece.name], dtype=torch.bool))[piece.rows] = True
        return masks

    def pieces(self, anatomy: Anatomy) -> list[Piece]:
        """What can be tuned: the blocks' projections with their biases, and every other vector of blocks and norms."""
        names = {id(parameter): name for name, parameter in anatomy.named_parameters()}
        pieces, seen = [], {*CLASS_TOKENS}
        for block in anatomy.blocks:
            for target, linear in block.projections.items():
                rows = slice(0, linear.out_features) if linear.rows is None else slice(*linear.rows)
                weight, bias = names[id(linear.module.weight)], names.get(id(linear.module.bias))
                dropout = 0.0 if target == "proj" else self.dropout
                beside = self.structured == "lora" or (target == "proj" and self.proj_adapter == "beside")
                cost = self._cost(linear, beside)
                piece = Piece(weight, rows, linear, cost, cost / self.matrix_ratio, dropout=dropout, beside=beside)
                pieces.append(piece)
                seen.add(weight)
                if bias is not None:
                    pieces.append(self._vector(bias, rows, entries=True))
                    seen.add(bias)
        vectors = {id(p) for block in anatomy.blocks for p in block.module.parameters() if p.dim() == 1}
        vectors |= {id(p) for m in anatomy.model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
        for name, parameter in anatomy.named_parameters():
            if id(parameter) in vectors and name not in seen:
                pieces.append(self._vector(name, slice(0, len(parameter)), entries=False))
        return pieces

    def _vector(self, name: str, rows: slice, entries: bool) -> Piece:
        length = rows.stop - rows.start
        return Piece(name, rows, None, length, length / self.vector_ratio, entries)

    def _cost(self, linear: Affine, beside: bool) -> int:
        matrices = self.rank * ((linear.in_features if beside else linear.out_features) + linear.out_features)
        return matrices if self.structured == "lora" else matrices + self.rank + linear.out_features

    def _add_module(self, linear: Affine, piece: Piece) -> None:
        like, out = linear.weight, linear.out_features
        if self.structured == "lora":
            linear.add_delta(LowRank(linear.in_features, out, self.rank, 1.0, piece.dropout).to(like))
        elif piece.beside:
            linear.add_delta(BesideProjection(linear.in_features, out, self.rank).to(like))
        else:
            linear.add_after(InputDropAdapter(out, self.rank, piece.dropout).to(like))


def _largest_within(budget: int, owners: Tensor, pieces: list[Piece]) -> int:
    """The largest τ with which at most `budget` parameters train.

    Args:
        owners: which piece each entry belongs to, the most sensitive entry first.
    """
    costs = torch.tensor([piece.cost for piece in pieces], device=owners.device)
    thresholds = torch.tensor([piece.threshold for piece in pieces], device=owners.device)
    entries = torch.tensor([int(piece.entries) for piece in pieces], device=owners.device)
    fits, too_many = 0, len(owners) + 1
    while too_many - fits > 1:
        tau = (fits + too_many) // 2
        hits = torch.bincount(owners[:tau], minlength=len(pieces))
        if int(torch.where(hits >= thresholds, costs, hits * entries).sum()) <= budget:
            fits = tau
        else:
            too_many = tau
    return fits
