"""A linear probe of a vision-language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ...backbones import Anatomy, LogitInsert, TextTower
from ...errors import Unsupported
from ...registry import METHODS
from ..method import Method


class ClosedHead(LogitInsert):
    """``W f √E + b`` in place of the logits, f (N, E) normalised image features; W (C, E) of the first class names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.head: nn.Linear | None = None
        self.class_names: tuple[str, ...] = ()

    def set_class_names(self, text: TextTower, class_names: Sequence[str]) -> None:
        if self.head is None:
            device = next(text.root.parameters()).device
            self.class_names = tuple(class_names)
            self.head = nn.Linear(self.width, len(class_names), device=device)
            nn.init.trunc_normal_(self.head.weight, std=0.02, a=-0.04, b=0.04)
            nn.init.zeros_(self.head.bias)
        elif tuple(class_names) != self.class_names:
            raise Unsupported(
                f"a linear head has learned {len(self.class_names)} classes and cannot tell others by their names: "
                f"give it a task that tests the classes of its training"
            )

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        assert self.head is not None
        return self.head(features * self.width**0.5)


@METHODS.register("linear_probe", family="openvocab", tracks=("openvocab",))
@dataclass
class LinearProbe(Method):
    """A linear classifier on the image features, without a word of text (Radford et al. 2021, arXiv:2103.00020, 3.2).

    The baseline of few-shot learning (arXiv:2109.01134, figure 3). CLIP's and CoOp's is a logistic regression by L-BFGS
    whose penalty is searched for each data set; this one is the protocol's optimiser on normalised features times √E,
    whose entries have a variance of one, and starts as a linear head of the image track does. E·C + C parameters. Where
    a test has other classes it is `Unsupported`.
    """

    identity_at_start: ClassVar[bool] = False

    def adapt(self, anatomy: Anatomy) -> None:
        text = anatomy.text_tower()
        text.add_after_logits(ClosedHead(text.embed_dim))
