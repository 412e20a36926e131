"""``peftmark profile``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import PeftmarkError
from ..registry import load_plugins
from .labels import label
from .settings import import_option, parse_settings

if TYPE_CHECKING:
    from ..results import CostRecord, Memory


@click.command("profile")
@click.option("--method", required=True, metavar="M")
@click.option("--backbone", required=True, metavar="B", help="timm/…, open_clip/…, a bare name. Weights are drawn.")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, metavar="N")
@click.option("--classes", type=click.IntRange(min=1), default=100, show_default=True, metavar="N", help="Of the head.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option(
    "--frozen-dtype",
    type=click.Choice(["float32", "bfloat16", "int8", "nf4"]),
    default="float32",
    show_default=True,
    help="What frozen matrices are held in.",
)
@click.option(
    "--gradient-checkpointing", is_flag=True, help="Compute a block's activations again in the backward pass."
)
@click.option("--optimizer", type=click.Choice(["adamw", "sgd"]), default="adamw", show_default=True)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="method.rank=8, …")
@click.option("--speed", is_flag=True, help="Time steps, in rounds with full fine-tuning and the bare backbone.")
@click.option("--device", metavar="D", help="As of `run`. On a GPU memory is measured, too.")
@click.option("--results", type=click.Path(path_type=Path), metavar="DIR", help="Also write the record there.")
@click.option("--json", "as_json", is_flag=True, help="Print the cost record.")
@import_option
def profile_command(
    method: str,
    backbone: str,
    batch_size: int,
    classes: int,
    precision: str,
    frozen_dtype: str,
    gradient_checkpointing: bool,
    optimizer: str,
    settings: tuple[str, ...],
    speed: bool,
    device: str | None,
    results: Path | None,
    as_json: bool,
    plugins: tuple[str, ...],
) -> None:
    """What a method costs on a backbone: parameters, storage, memory, operations, and with --speed time.

    Memory is estimated without computing anything, so it needs neither a GPU nor the memory.
    """
    load_plugins(plugins)
    parsed = parse_settings(settings)
    if parsed["protocol"] or parsed["launcher"]:
        raise PeftmarkError("a profile has no protocol and no launcher: --set takes method.NAME=VALUE here")

    from ..benchmark.environment import find_device, hardware_class
    from ..benchmark.launch.worker import prepare_process
    from ..benchmark.measure.profile import profile
    from ..benchmark.plan.costs import cost_specs
    from ..benchmark.plan.suite import SuiteProfiles
    from ..results import Store, encode_record

    found = find_device(device)
    prepare_process(found)
    measured = speed or found.type == "cuda"
    variant = {
        "precision": precision,
        "frozen_dtype": frozen_dtype,
        "gradient_checkpointing": gradient_checkpointing,
        **({"optimizer": optimizer} if optimizer != "adamw" else {}),
    }
    profiles = SuiteProfiles(
        backbones=[backbone], methods=[method], batch_size=batch_size, num_classes=classes, variants=[variant]
    )
    hardware = hardware_class(found) if measured else None
    (spec,) = cost_specs(backbone, [(method, parsed["method"])], profiles, {}, hardware)
    record = profile(spec, found if measured else None, speed)
    if results is not None:
        store = Store(results)
        with store.lock():
            store.write_cost(record, store.cost_paths().get(record.cost_id))
    click.echo(encode_record(record).decode() if as_json else _cost_table(record), nl=not as_json)
    if record.status not in ("ok", "unsupported"):
        raise SystemExit(1)


def _cost_table(record: CostRecord) -> str:
    """A table for people."""
    lines = [f"{label(record.spec)}  {record.status}"]
    if record.error:
        lines.append(f"{record.error.phase}: {record.error.message}")
    if record.params and record.storage:
        own, added = record.params.trainable_without_head, record.params.added_at_inference
        lines.append(f"parameters  {own:,} trainable without the head, {added:,} added at inference")
        lines.append(f"storage     {record.storage.adapter_bytes:,} bytes with the head")
    if record.memory:
        lines.append(f"memory      {_memory(record.memory.estimated)} (estimated)")
        if record.memory.measured:
            lines.append(f"            {_memory(record.memory.measured)} (measured, {record.spec.hardware_class})")
        parts = record.memory.estimated.breakdown_bytes
        if parts:
            by_part = ", ".join(f"{name} {getattr(parts, name) / 2**20:,.0f}" for name in parts.__struct_fields__)
            lines.append(f"            of training, MiB: {by_part}")
    if record.compute:
        forward, merged = record.compute.forward_flops_per_image, record.compute.merged_forward_flops_per_image
        after = f", {merged / 1e9:,.2f} merged" if merged is not None else ""
        train = record.compute.train_step_flops / record.spec.batch_size
        lines.append(f"GFLOP       {forward / 1e9:,.2f} an image forward{after}; {train / 1e9:,.2f} a training step")
    if record.speed:
        speed = record.speed
        lines.append(
            f"training    {speed.train_step_ms.median:,.1f} ms a step, {speed.train_images_per_s:,.1f} images/s, "
            f"{speed.train_step_relative_to_full:.3f} of full fine-tuning's step"
        )
        lines.append(
            f"inference   {speed.inference.images_per_s:,.1f} images/s, {speed.inference.batch1_ms.median:,.1f} ms for "
            f"one, {speed.inference_relative_to_bare:.3f} of the bare backbone's time"
        )
        if speed.merged:
            lines.append(
                f"            merged {speed.merged.images_per_s:,.1f} images/s, "
                f"{speed.merged.batch1_ms.median:,.1f} ms for one"
            )
    return "\n".join(lines)


def _memory(memory: Memory) -> str:
    peaks = (memory.train_peak_allocated_bytes, memory.eval_peak_allocated_bytes)
    training, inference = (f"{peak / 2**20:,.0f} MiB" for peak in peaks)
    return f"{training} training, {inference} inference"
