"""Which method works on which backbone family, by trying: ``python -m peftmark.benchmark.support`` writes the table.

Each native method adapts a small model of each family, with its defaults, and does one forward and backward pass. What
cannot work says why by raising `Unsupported`; any other error is an error here, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import timm
import torch

from ..adapting import DEFAULT_TEMPLATES
from ..backbones import Anatomy, find_backbone
from ..backbones.timm.builder import timm_anatomy
from ..errors import Unsupported
from ..methods import make_method, make_model
from ..registry import METHODS
from ..tasks import clip_length_of_track, objective_of_track
from .plan.costs import main_track

PAGE = Path(__file__).parent.parent / "methods" / "BACKBONES.md"
IMAGES, FRAMES, CLASS_NAMES = 4, 2, ("cat", "dog")


@dataclass(frozen=True)
class Family:
    """A backbone family and a small random model of it.

    Args:
        name: of the family. examples: what users ask for.
        architecture: a timm architecture, made small by `sizes`; without them a registered backbone that is small.
    """

    name: str
    examples: str
    architecture: str
    sizes: Mapping[str, Any] = field(default_factory=dict)

    def anatomy(self) -> Anatomy:
        """Always the same weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if not self.sizes:
                return find_backbone(self.architecture).build(pretrained=False)
            model = timm.create_model(self.architecture, pretrained=False, num_classes=0, **self.sizes)
        return timm_anatomy(self.architecture, model, cast(dict[str, Any], model.pretrained_cfg))


SMALL_IMAGES = {"pretrained_cfg_overlay": {"input_size": (3, 64, 64)}}
"""Of networks that take images of any size."""

# Layer scales start at 1e-5 or less and a residual branch's last norm at 0, so that fresh blocks hide what is done to
# them; trained ones do not stay there.
SMALL_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3}
FAMILIES = (
    Family("ViT", "vit_base_patch16_224, deit_base_patch16_224", "vit_base_patch16_224", SMALL_VIT),
    Family(
        "DINOv2", "vit_small_patch14_reg4_dinov2", "vit_small_patch14_reg4_dinov2", {**SMALL_VIT, "init_values": 0.5}
    ),
    Family("SigLIP", "vit_base_patch16_siglip_224", "vit_base_patch16_siglip_224", SMALL_VIT),
    Family("CLIP ViT", "open_clip/ViT-B-16", "embedded/clip"),
    Family(
        "Swin",
        "swin_tiny_patch4_window7_224",
        "swin_tiny_patch4_window7_224",
        {"img_size": 32, "window_size": 4, "embed_dim": 24, "depths": (2, 2, 1), "num_heads": (2, 2, 4)},
    ),
    Family(
        "ConvNeXt",
        "convnext_tiny, convnextv2_tiny",
        "convnext_tiny",
        {**SMALL_IMAGES, "depths": (1, 1, 2, 1), "dims": (16, 24, 32, 48), "ls_init_value": 0.5},
    ),
    Family("EfficientNet", "efficientnet_b0", "test_efficientnet", {**SMALL_IMAGES, "channel_multiplier": 1.25}),
    Family("ResNet", "resnet50", "test_resnet", {**SMALL_IMAGES, "zero_init_last": False}),
)


def native_methods() -> list[str]:
    """Registered methods but those of a namespace, family by family."""
    names = [name for name in METHODS.names() if METHODS.entry(name).namespace is None]
    return sorted(names, key=lambda name: (METHODS.entry(name).family, name))


def reason_against(family: Family, method: str) -> str | None:
    """Why the method does not work on the family; None where it does, on the first track that it declares."""
    anatomy = family.anatomy()
    anatomy.name = "the backbone"  # in the reason
    track = main_track(method)
    frames = None if clip_length_of_track(track) is None else FRAMES
    shape = anatomy.input.shape if frames is None else (frames, *anatomy.input.shape)
    objective = objective_of_track(track, CLASS_NAMES, DEFAULT_TEMPLATES)
    images = torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(0))
    targets = objective.made_up_targets(IMAGES)
    made = make_method(method)
    try:
        model = make_model(anatomy, made, objective, frames)
        made.prepare(model, [(images, targets)])
        loss = objective.loss(model.train()(images), targets)
    except Unsupported as error:
        return str(error)
    if loss.requires_grad:
        loss.backward()
    return None


def page() -> str:
    """The table, as Markdown."""
    reasons: list[str] = []
    rows = []
    for method in native_methods():
        cells = []
        for family in FAMILIES:
            reason = reason_against(family, method)
            if reason is not None and reason not in reasons:
                reasons.append(reason)
            cells.append("✓" if reason is None else str(reasons.index(reason) + 1))
        rows.append((f"`{method}`", METHODS.entry(method).family, *cells))
    head = ("method", "taxonomy", *(family.name for family in FAMILIES))
    lines = [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    examples = [f"- **{family.name}**: {family.examples}" for family in FAMILIES]
    return "\n".join([_ABOUT, *examples, "", *lines, "", "What the numbers say:", "", *notes, ""])


_ABOUT = """\
# Methods and backbone families

Written by `make support` (`python -m peftmark.benchmark.support`), compared by a test. ✓: the method, with its
defaults, adapts a small model of the family and trains. A number: the pair is `unsupported`, and this is the reason.

- A block of ConvNeXt has no attention. Methods that adapt projections by `targets` (`lora` and its kin) take fc1 and
  fc2 there instead of q and v; adapters stand at its one branch; `ia3` scales its hidden activations only.
- Where a stage's stream is a map (Swin, ConvNeXt) every insert sees it as (N, rows, columns, D), with the stage's D.
- Swin V2, whose norms come last, and every timm model that is not of these families are like EfficientNet here:
  methods that choose among parameters work, methods that need parts do not.
- A vision-language model of open_clip or transformers (`hf/…`) is like the family of its image tower, and methods of
  the text side work whatever that is: with a ViT, with CLIP's ResNets, with ALIGN's EfficientNet. open_clip's SigLIP,
  CLIPA, EVA and MobileCLIP and transformers' CLIP, SigLIP, FLAVA and ALIGN have a text tower here; CoCa and open_clip's
  towers with a Hugging Face text encoder have none.
"""


if __name__ == "__main__":
    PAGE.write_text(page())
