"""The names of what each method inserts, as a text: ``python tests/methods/inserted_names.py`` writes it."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import torch

from peftmark import METHODS
from peftmark.adapting import adapt
from peftmark.backbones import Anatomy, find_backbone

FILE = Path(__file__).with_suffix(".txt")


def anatomy(backbone: str) -> Anatomy:
    torch.manual_seed(0)
    return find_backbone(backbone).build(pretrained=False)


def inserted(backbone: str, method: str, **config: object) -> list[str]:
    """Names of the parameters of an adapted model that the method inserted."""
    tracks = METHODS.entry(method).metadata["tracks"]
    batches = [(torch.rand(4, 3, 40, 40), torch.tensor([0, 1, 2, 0]))]
    if "image" in tracks:
        model = adapt(anatomy(backbone), method, num_classes=3, batches=batches, **config)
    elif "openvocab" in tracks:
        model = adapt(anatomy(backbone), method, class_names=["ant", "bee", "cow"], batches=batches, **config)
    else:
        model = adapt(anatomy(backbone), method, num_classes=3, num_frames=2, **config)
    return [name for name, _ in model.named_parameters() if "slots" in name.split(".")]


def together(names: list[str]) -> list[str]:
    """Names that differ in the block's number alone, as one line each: ``…blocks.{0 1 2}.…``."""
    blocks = defaultdict(list)
    for name in names:
        found = re.search(r"blocks\.(\d+)\.", name)
        form = name if found is None else name[: found.start(1)] + "{}" + name[found.end(1) :]
        blocks[form].append("" if found is None else found[1])
    return [form.replace("{}", f"{{{' '.join(numbers)}}}") for form, numbers in blocks.items()]


def listing() -> str:
    lines = []
    for method in METHODS.expand("*"):
        tracks = METHODS.entry(method).metadata["tracks"]
        backbone = "embedded/clip" if tracks == ("openvocab",) else "embedded/vit"
        lines += [f"{method} {name}" for name in together(inserted(backbone, method))]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    FILE.write_text(listing())
