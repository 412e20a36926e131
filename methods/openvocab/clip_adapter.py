"""CLIP-Adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones import Anatomy, Insert
from ...registry import METHODS
from ..method import Method
from ..ranges import Count
from ..search_space import Dimension, Uniform


class FeatureAdapter(Insert):
    """``f -> ratio * relu(W2 relu(W1 f)) + (1 - ratio) * f`` on embeddings (N, E), W1 (E/reduction, E), no biases."""

    def __init__(self, width: int, reduction: int, ratio: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, width // reduction, bias=False)
        self.up = nn.Linear(width // reduction, width, bias=False)
        self.ratio = ratio

    def forward(self, f: Tensor) -> Tensor:
        adapted = F.relu(self.up(F.relu(self.down(f))))
        return self.ratio * adapted + (1 - self.ratio) * f


@METHODS.register("clip_adapter", family="openvocab", tracks=("openvocab",))
@dataclass
class CLIPAdapter(Method):
    """A bottleneck on the image embedding, blended with it (Gao et al. 2021, arXiv:2110.04544, equations 4 and 6).

    ``f* = ratio * A(f) + (1 - ratio) * f`` before the normalisation, A being two linear layers without bias, each with
    a ReLU after it. They start as torch's linear layers do, so an untrained model is not CLIP. 131,072 parameters on
    CLIP ViT-B/16. The paper's second adapter, on the text's side, is not in the official code, whose default it is to
    adapt images alone; `ratio` is 0.2 there and found per dataset in the paper.
    """

    identity_at_start: ClassVar[bool] = False

    reduction: Count = 4
    ratio: Annotated[float, Meta(ge=0, le=1)] = 0.2

    def search_space(self) -> Mapping[str, Dimension]:
        return {"ratio": Uniform(0.1, 0.9)}

    def adapt(self, anatomy: Anatomy) -> None:
        text = anatomy.text_tower()
        text.add_after_image(FeatureAdapter(text.embed_dim, self.reduction, self.ratio))
