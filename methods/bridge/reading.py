"""A folder that Hugging Face PEFT wrote, read as data: nothing of it is run, nothing that it names is fetched.

A folder may come from anywhere. Its patterns of layers' names are not used as patterns, for one can be written that
takes for ever: which layers it changes is told by the names of its tensors.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ...errors import PeftmarkError
from ...results.files import read_regular
from ...results.nesting import check_nesting
from .library import CONFIG, WEIGHTS

CONFIG_BYTES = 2**20
"""More than any adapter_config.json has."""
WEIGHTS_BYTES = 4 * 2**30
PICKLES = ("adapter_model.bin", "pytorch_model.bin")


@dataclass(frozen=True)
class PeftFiles:
    """What is in a folder.

    Attributes:
        config: the fields of its adapter_config.json.
        sha256: of the two files' contents together: the same adapter elsewhere has the same.
    """

    folder: Path
    config: dict[str, Any]
    sha256: str

    @property
    def name(self) -> str:
        """What it is called in a record's error: where it lies is nobody's business there."""
        return f"the PEFT folder {self.folder.name}"

    @property
    def kind(self) -> str:
        """PEFT's ``peft_type`` in small letters."""
        return str(self.config.get("peft_type")).lower()

    def tensors(self) -> dict[str, Tensor]:
        """In float32, by the names in the file.

        Raises:
            PeftmarkError: where the file is damaged, or has changed since.
        """
        content = _read(self.folder / WEIGHTS, WEIGHTS_BYTES)
        if _sha256(_read(self.folder / CONFIG, CONFIG_BYTES), content) != self.sha256:
            raise PeftmarkError(f"{self.name} has changed since the run was planned: run the command again")
        try:
            with torch.device("cpu"):  # also where a profile's model has no values
                tensors = safetensors.torch.load(content)
        except (SafetensorError, ValueError, KeyError) as error:
            reason = str(error).strip().split("\n")[0][:160]
            raise PeftmarkError(f"{self.name}: {WEIGHTS} cannot be read ({reason}): is the file whole?") from error
        for name, tensor in tensors.items():
            if not tensor.is_floating_point() or not tensor.isfinite().all():
                raise PeftmarkError(f"{self.name}: {WEIGHTS}: {name[:100]!r} has values that are no finite numbers")
        return {name: tensor.to(torch.float32, copy=True) for name, tensor in tensors.items()}


def read_folder(folder: Path) -> PeftFiles:
    """
    Raises:
        PeftmarkError: where it is no folder that PEFT wrote, or holds a pickle in place of tensors.
    """
    if not folder.is_dir():
        raise PeftmarkError(f"there is no folder {folder}: give the one that PEFT wrote, with its {CONFIG}")
    if not (folder / CONFIG).is_file():
        raise PeftmarkError(f"{folder} is no PEFT folder: it has no {CONFIG}")
    if not (folder / WEIGHTS).is_file():
        pickle = next((name for name in PICKLES if (folder / name).exists()), None)
        if pickle:
            raise PeftmarkError(
                f"{folder} holds {pickle}, a pickle, which can run code and is never loaded: save the adapter anew, "
                f"model.save_pretrained(DIR), as {WEIGHTS}"
            )
        raise PeftmarkError(f"{folder} is no whole PEFT folder: it has no {WEIGHTS}")
    config = _read(folder / CONFIG, CONFIG_BYTES)
    return PeftFiles(folder, _decoded(config, folder / CONFIG), _sha256(config, _read(folder / WEIGHTS, WEIGHTS_BYTES)))


def _read(file: Path, limit: int) -> bytes:
    try:
        return read_regular(file, limit)
    except OSError as error:
        raise PeftmarkError(f"{file} cannot be read ({error.strerror})") from error


def _decoded(content: bytes, file: Path) -> dict[str, Any]:
    try:
        config = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = type(error).__name__ if isinstance(error, RecursionError) else str(error)[:100]
        raise PeftmarkError(f"{file} is no JSON that can be read ({reason}): is the file whole?") from error
    check_nesting(file, config, what="configuration")
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise PeftmarkError(f"{file} has no peft_type: it is no configuration that PEFT wrote")
    return config


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _sha256(config: bytes, weights: bytes) -> str:
    parts = (hashlib.sha256(config).hexdigest(), hashlib.sha256(weights).hexdigest())
    return hashlib.sha256("".join(parts).encode()).hexdigest()
