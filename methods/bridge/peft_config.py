"""The config of a PEFT folder as PEFT's own class, with only what is safe to take from somebody else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from ...errors import PeftmarkError
from ..method import check_value
from .folder_layout import WRAPPER, Layout
from .hf_peft import EXCLUDED, checkable
from .library import CONFIG, import_peft
from .reading import PeftFiles

_BY_TENSORS = ("target_modules", "exclude_modules", "feedforward_modules", "modules_to_save", "layers_to_transform",
               "layers_pattern", "rank_pattern", "alpha_pattern")  # fmt: skip
"""Fields of names and patterns: tensors' names say which layers there are, `_by_layer` what two patterns mean."""

_NO_MATTER = ("auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "ephemeral_gpu_offload",
              "eva_config", "fan_in_fan_out", "inference_mode", "init_ia3_weights", "init_lora_weights", "init_weights",
              "megatron_config", "megatron_core", "peft_type", "peft_version", "progressbar", "revision",
              "runtime_config", "runtime_offload_base_weight", "save_only_topk_weights", "task_type")  # fmt: skip
"""Fields that say nothing of what a loaded adapter computes on a backbone that is given."""

STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Where LoRA may have started: what leaves the backbone's own weights as they are (PiSSA, OLoRA, … change them)."""

_REFUSED = ("target_parameters", "trainable_token_indices", "layer_replication", "alora_invocation_tokens",
            "arrow_config", "use_qalora", "corda_config", "loftq_config", "lora_ga_config")  # fmt: skip

_NO_SIZE = re.compile("alpha|seed|key|step|tinit|tfinal|deltaT")
"""Names of whole numbers that may be large."""

_PLAIN = re.compile(r"\^?[\w.\\-]+\$?")
"""A pattern that is no more than a name: one with repetitions can be made to take for ever."""


def tuner_of(files: PeftFiles) -> Any:
    """PEFT's config class.

    Raises:
        PeftmarkError: where the installed PEFT has none of the kind, or it is not for images.
    """
    kinds = import_peft("a PEFT folder").PEFT_TYPE_TO_CONFIG_MAPPING
    known = {kind.value.lower(): config for kind, config in kinds.items()}
    if files.kind in EXCLUDED:
        raise PeftmarkError(f"{files.name} is not for images: {files.kind}: {EXCLUDED[files.kind]}")
    if files.kind not in known:
        raise PeftmarkError(f"{files.name} is of kind {files.kind[:100]!r}, which the installed PEFT does not know")
    return known[files.kind]


def peft_config(files: PeftFiles, layout: Layout) -> Any:
    """The config for the layers of a layout, by their names in the image backbone.

    Raises:
        PeftmarkError: where a field is unknown, has a value that it cannot have, or changes more than the layers.
    """
    config_class = tuner_of(files)
    known = {item.name: item for item in fields(config_class)}
    hints = get_type_hints(config_class)
    numbers = sum(tensor.numel() for tensor in layout.tensors.values())
    largest = max(size for tensor in layout.tensors.values() for size in (1, *tensor.shape))
    settings: dict[str, Any] = {}
    for name, value in files.config.items():
        wrong = f"{files.name}: {CONFIG} sets {name[:100]!r} to {str(value)[:100]!r}"
        if name == "init_lora_weights" and value not in STARTS:
            raise PeftmarkError(f"{wrong}, which has changed the weights of the model that it was trained on, too")
        if name in _BY_TENSORS or name in _NO_MATTER:
            continue
        if name in _REFUSED or name not in known:
            if value:
                why = "cannot be had here" if name in known else "the installed PEFT does not know"
                raise PeftmarkError(f"{wrong}, which {why}")
            continue
        if value == _default(known[name]):
            continue
        try:
            settings[name] = check_value(name, value, checkable(hints[name]))
        except ValueError as error:
            raise PeftmarkError(f"{wrong}, which is not valid") from error
        if isinstance(value, int) and not _NO_SIZE.search(name) and value > (largest if name == "r" else numbers):
            raise PeftmarkError(f"{wrong}, more than its tensors have")
    for name in ("rank_pattern", "alpha_pattern"):
        if name in known and files.config.get(name):
            settings[name] = _by_layer(files, name, layout)
    if "feedforward_modules" in known:
        settings["feedforward_modules"] = _pattern([each for each in layout.layers if _reads_scaled(each, layout)])
    try:
        return config_class(target_modules=_pattern(layout.layers), inference_mode=False, **settings)
    except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
        raise PeftmarkError(f"{files.name}: {CONFIG}: {' '.join(str(error).split())[:200]}") from error


def _by_layer(files: PeftFiles, name: str, layout: Layout) -> dict[str, int]:
    """Numbers that a config has by patterns of layers' names, by layer."""
    patterns = files.config[name]
    if not isinstance(patterns, Mapping) or not all(type(number) in (int, float) for number in patterns.values()):
        raise PeftmarkError(f"{files.name}: {CONFIG}: {name} is not valid: numbers by layers' names are expected")
    for pattern in patterns:
        if not _PLAIN.fullmatch(pattern):
            raise PeftmarkError(f"{files.name}: {CONFIG}: {name} has {pattern[:100]!r}: names are read, no patterns")
    from peft.utils.other import get_pattern_key

    found = {layer: get_pattern_key(list(patterns), f"{layout.prefix}{layer}") for layer in layout.layers}
    return {re.escape(layer): patterns[pattern] for layer, pattern in found.items() if pattern in patterns}


def _reads_scaled(layer: str, layout: Layout) -> bool:
    """Whether (IA)³ scales the layer's input: then the vector is a row, else a column."""
    scale = layout.tensors.get(f"{WRAPPER}{layer}.ia3_l")
    return scale is not None and scale.dim() > 1 and scale.shape[0] == 1


def _pattern(names: list[str]) -> str:
    """Of these names alone; a list would also match longer names that end so."""
    return "|".join(map(re.escape, names))


def _default(item: Any) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()
