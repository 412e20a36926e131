"""The table of methods and backbone families: it is what trying gives, and every tick in it keeps the invariants."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from invariants import CLASS_NAMES, FRAMES, Case, labels

# the invariants again, on the cases of this file
from test_invariants import (  # noqa: F401
    test_adapter_alone_restores_the_model,
    test_every_trainable_tensor_gets_a_gradient,
    test_frozen_tensors_stay_bit_identical,
    test_merge_keeps_the_logits_and_the_backbone_s_structure,
    test_starts_as_the_bare_backbone,
)

from peftmark import METHODS
from peftmark.backbones import Anatomy
from peftmark.methods import AdaptedModel, adapt
from peftmark.methods.support import FAMILIES, PAGE, SMALL_IMAGES, SMALL_VIT, Family, page


@dataclass(frozen=True)
class FamilyCase(Case):
    """One method on a small model of a backbone family."""

    family: Family

    def anatomy(self) -> Anatomy:
        return self.family.anatomy()

    def model(self, anatomy: Anatomy | None = None) -> AdaptedModel:
        torch.manual_seed(1)
        frames = FRAMES if self.track == "video" else None
        # on so small a model the default share would not even pay for the head
        config = {"keep": 0.1} if hasattr(METHODS[self.method], "keep") else {}
        return adapt(
            anatomy or self.anatomy(),
            self.method,
            num_classes=len(CLASS_NAMES),
            num_frames=frames,
            batches=[(self.images(), labels())],
            **config,
        )

    def images(self, n: int = 6) -> torch.Tensor:
        shape = (n, *[FRAMES] * (self.track == "video"), 3, *self.anatomy().image_size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def ticks(column: str) -> list[str]:
    """Methods that have a tick in this column of the committed table."""
    rows = [row.split(" | ") for row in PAGE.read_text().splitlines() if row.startswith("| ")]
    place = [cell.strip("| ") for cell in rows[0]].index(column)
    return [row[0].strip("| `") for row in rows[1:] if row[place].strip("| ") == "✓"]


OTHERS = {family.name: family for family in FAMILIES if family.name not in ("ViT", "CLIP ViT")}
"""Those two are the embedded backbones of the registry's own invariants."""
SWIN = OTHERS["Swin"]
VARIANTS = (
    # 10 x 10, 5 x 5 and 3 x 3 tokens in windows of 4 x 4: padded, and masked where they are shifted
    ("Swin", Family("Swin, padded", "", SWIN.architecture, {**SWIN.sizes, "img_size": 40})),
    (
        "ConvNeXt",
        Family(
            "ConvNeXt V2, 1x1 convolutions",
            "",
            "convnextv2_tiny",
            {**SMALL_IMAGES, "depths": (1, 1, 1, 1), "dims": (16, 24, 32, 32), "conv_mlp": True},
        ),
    ),
    # the mean of the patches is normed instead of the patches
    ("ViT", Family("ViT, mean", "", "vit_base_patch16_224", {**SMALL_VIT, "global_pool": "avg"})),
)
CASES = [
    FamilyCase(method, METHODS.entry(method).metadata["tracks"][0], family)
    for column, family in (*OTHERS.items(), *VARIANTS)
    for method in ticks(column)
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case.family.name}-{case.method}".replace(" ", "_"))
def case(request: pytest.FixtureRequest) -> FamilyCase:
    return request.param


def test_the_committed_table_is_what_trying_gives() -> None:
    assert PAGE.read_text() == page(), "write it again: python -m peftmark.methods.support"
