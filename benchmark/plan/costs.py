"""Which profiles a suite, or a command, asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from ...backbones import find_backbone
from ...backbones.anatomy.quantized import check_held
from ...errors import PeftmarkError
from ...methods import make_method
from ...registry import METHODS
from ...results import CostSpec, check_recordable
from ...tasks import clip_length_of_track
from .suite import Suite, SuiteProfiles, narrowed


def suite_costs(
    suite: Suite,
    methods: Sequence[str],
    backbones: Sequence[str],
    settings: Mapping[str, Any],
    hardware_class: str | None,
) -> list[CostSpec]:
    """With methods and backbones of a request's own, the profiles of the suite's batches and variants on those."""
    wanted = [name for pattern in methods for name in METHODS.expand(pattern)]
    specs = []
    for profiles in suite.profiles:
        selected = narrowed(profiles.selected(), wanted, profiles.track)
        for backbone in backbones or profiles.backbones:
            specs += cost_specs(backbone, selected, profiles, settings, hardware_class)
    return list({spec.cost_id: spec for spec in specs}.values())


def main_track(method: str) -> str:
    """The track that a method is profiled for: the first that it declares."""
    return str(METHODS.entry(method).metadata["tracks"][0])


def cost_specs(
    backbone: str,
    methods: Sequence[tuple[str, Mapping[str, Any]]],
    profiles: SuiteProfiles,
    settings: Mapping[str, Any],
    hardware_class: str | None,
) -> list[CostSpec]:
    """What the methods cost on a backbone, in each of their variants.

    Args:
        hardware_class: of what they are measured on; None where they are estimated only.

    Raises:
        PeftmarkError: on unknown names or settings.
    """
    full_name, input_shape = _name_and_input(backbone)
    specs = []
    for variant in profiles.variants:
        for name, config in methods:
            made = make_method(name, {**config, **settings})
            check_recordable(f"method {name!r}", made.config())
            frames = clip_length_of_track(main_track(name))
            table = {
                "method": {"name": METHODS.canonical(name), "version": made.version, "config": made.config()},
                "backbone": full_name,
                "input_shape": input_shape if frames is None else (frames, *input_shape),
                "num_classes": profiles.num_classes,
                "batch_size": profiles.batch_size,
                "hardware_class": hardware_class,
                **variant,
            }
            try:
                spec = msgspec.convert(table, CostSpec)
            except msgspec.ValidationError as error:
                raise PeftmarkError(f"what is to be profiled: {error}") from error
            check_held(spec.frozen_dtype)
            specs.append(spec)
    return specs


@lru_cache(maxsize=256)
def _name_and_input(backbone: str) -> tuple[str, tuple[int, ...]]:
    """A backbone's full name and the shape of what it reads, found once: a suite has several tables for it."""
    builder = find_backbone(backbone)
    return builder.name, builder.input_shape()
