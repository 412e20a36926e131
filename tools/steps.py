"""``python -m tools.steps``: the training step of every method, relative to full fine-tuning's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pandas as pd
import torch

from peftmark.adapting import adapt
from peftmark.backbones import find_backbone
from peftmark.benchmark.measure.flops import count_flops
from peftmark.benchmark.measure.speed import MeasuredStep, Step, ratio, take_turns
from peftmark.errors import Unsupported
from peftmark.methods import make_method
from peftmark.registry import METHODS

CLASSES, GROUP = 100, 6
"""Methods that are timed together: as many models of a ViT-B/16 are in memory at once."""


def build_step(backbone: str, method: str, images: torch.Tensor, labels: torch.Tensor) -> Step:
    """The step of `method` with its defaults on a random backbone; with nothing to train, a forward pass."""
    torch.manual_seed(0)
    batches = [(images, labels)] if make_method(method).needs_batches else None
    model = adapt(backbone, method, num_classes=CLASSES, pretrained=False, batches=batches)
    return MeasuredStep(model, images, labels, CLASSES)


def measure(backbone: str, methods: Sequence[str], batch_size: int, warmup: int, rounds: int) -> Iterator[pd.DataFrame]:
    """One frame a group of methods: ``method``, ``step`` and its quartiles, ``flops``; all relative to ``full``."""
    generator = torch.Generator().manual_seed(0)
    size = find_backbone(backbone).build(pretrained=False).image_size
    images = torch.randn(batch_size, 3, *size, generator=generator)
    labels = torch.randint(CLASSES, (batch_size,), generator=generator)
    full = build_step(backbone, "full", images, labels)
    full_flops = count_flops(full).counted
    for first in range(0, len(methods), GROUP):
        steps = {"full": full}
        for method in methods[first : first + GROUP]:
            try:
                steps[method] = build_step(backbone, method, images, labels)
            except Unsupported as error:
                click.echo(f"{method}: {error}", err=True)
        flops = {method: count_flops(step).counted / full_flops for method, step in steps.items()}
        seconds = take_turns(steps, warmup, rounds)
        rows = []
        for method in list(steps)[1:]:
            found = ratio(seconds[method], seconds["full"])
            rows.append({"method": method, "step": found.median, "q1": found.low, "q3": found.high,
                         "flops": round(flops[method], 4)})  # fmt: skip
        yield pd.DataFrame(rows)


@click.command()
@click.option("--backbone", default="vit_base_patch16_224", show_default=True)
@click.option("--method", "patterns", multiple=True, help="A method or a wildcard; by default every image method.")
@click.option("--batch-size", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--warmup", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--rounds", type=click.IntRange(min=2), default=12, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="A CSV file; printed in any case.")
def main(backbone: str, patterns: tuple[str, ...], batch_size: int, warmup: int, rounds: int, out: Path | None) -> None:
    """Time the training step of methods against full fine-tuning's, interleaved, on synthetic images.

    `step` is the median of the ratios, round by round, with its quartiles; `flops` the ratio that the matrix products
    and attention alone would give.
    """
    names = [name for pattern in patterns or ("*",) for name in METHODS.expand(pattern)]
    names = [name for name in names if "image" in METHODS.entry(name).metadata["tracks"] and name != "full"]
    click.echo(f"{backbone}, batch {batch_size}, float32, {torch.get_num_threads()} threads, torch {torch.__version__}")
    frames = []
    for frame in measure(backbone, names, batch_size, warmup, rounds):
        frames.append(frame)
        click.echo(frame.to_string(index=False, header=len(frames) == 1))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        pd.concat(frames).sort_values("step").to_csv(out, index=False)


if __name__ == "__main__":
    main()
