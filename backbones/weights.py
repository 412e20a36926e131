"""Weights files: where they are looked for, how they are read, and what is said when they cannot be had."""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import PeftmarkError
from .torchscript import is_torchscript, read_torchscript

SUFFIXES = (".safetensors", ".npz", ".pth", ".pth.tar", ".pt", ".bin")
IN_FOLDERS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)
"""What the weights are called in a folder that was saved for a hub, the safe format first."""
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
"""Under what a training run's checkpoint holds its state dict; an average over steps first, as timm takes it."""


@dataclass
class Checkpoint:
    """Base of what a family of backbones reads of a file.

    Attributes:
        state: the tensors.
        settings: what they ask for that the architecture's configuration may have otherwise.
        mean, std: of the images that they were trained on, where the checkpoint's kind says so.
        quick_gelu: whether they were trained with QuickGELU, as far as the checkpoint's kind says so.
    """

    file: Path
    state: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    quick_gelu: bool = False


def weights_folder() -> Path:
    """``$PEFTMARK_WEIGHTS``, by default ``~/.cache/peftmark/weights``."""
    return Path(os.environ.get("PEFTMARK_WEIGHTS", Path.home() / ".cache" / "peftmark" / "weights"))


def local_weights(name: str) -> Path | None:
    """The file of a backbone's weights in the weights folder.

    E.g. ``timm/vit_tiny_patch16_224.augreg_in21k.pth``, or the one in a folder ``open_clip/ViT-B-16.mine``.
    """
    for suffix in SUFFIXES:
        path = weights_folder() / f"{name}{suffix}"
        if path.is_file():
            return path
    folder = weights_folder() / name
    return weights_in(folder) if folder.is_dir() else None


def weights_in(folder: Path) -> Path:
    """The weights in a folder as open_clip, timm and transformers save one for a hub.

    Raises:
        PeftmarkError: where it holds none under a name that is known.
    """
    for name in IN_FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise PeftmarkError(f"the folder {folder} holds no weights: put one of {', '.join(IN_FOLDERS)} there")


def cannot_download(name: str, cause: Exception) -> PeftmarkError:
    """The one line a user gets where a hub cannot be reached."""
    target = weights_folder() / f"{name}.safetensors"
    return PeftmarkError(
        f"the weights of {name} are not here and cannot be downloaded ({type(cause).__name__}): put them at "
        f"{target} (or .npz, .pth), or name a file: --backbone {name}@FILE"
    )


def tokenizer_folder(name: str) -> Path:
    """Where in the weights folder a hub's tokenizer is looked for first, e.g. ``tokenizers/timm/ViT-B-16-SigLIP``."""
    return weights_folder() / "tokenizers" / name


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file, under the names that it has.

    A ``.safetensors`` file, an ``.npz`` of numpy arrays (JAX), a torch checkpoint, tensors only (a pickle that needs
    more is refused), or a TorchScript archive, of which only the state is read (OpenAI published CLIP so).

    Raises:
        PeftmarkError: where the file is damaged or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        if is_torchscript(path):
            return read_torchscript(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # MAE's keep the options of the run beside it
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except PeftmarkError:
        raise
    except Exception as error:  # each format has errors of its own
        if isinstance(error, pickle.UnpicklingError) and (objects := _python_objects(path)):
            raise PeftmarkError(
                f"{path} holds Python objects, which peftmark never loads ({', '.join(objects[:3])}): save the "
                "tensors alone, torch.save(model.state_dict(), FILE)"
            ) from error
        reason = str(error).strip().split("\n")[0][:160] or type(error).__name__
        raise PeftmarkError(f"{path} cannot be read as weights ({reason}): is the file whole?") from error
    for key in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    ):
        raise PeftmarkError(f"{path} holds no state dict (a dict of tensors by their names)")
    return cast(dict[str, Tensor], loaded)


def _python_objects(path: Path) -> list[str]:
    """The classes and functions that a pickle asks for beside tensors, found without running it."""
    try:
        return sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - {"argparse.Namespace"})
    except Exception:  # no pickle, or a damaged one
        return []


def load_exactly(
    path: Path, model: nn.Module, state: Mapping[str, Tensor], beside: tuple[str, ...] = (), drawn: tuple[str, ...] = ()
) -> None:
    """Copy a file's tensors into a model: each of the model's comes from the file, each of the file's is used.

    Args:
        beside: what the names start with that the file may hold beside the model: a classifier, say.
        drawn: what the names start with that the file need not hold.

    Raises:
        PeftmarkError: where names or shapes do not fit.
    """
    own = model.state_dict()
    allowed = (*drawn, *(name for name in own if name.endswith("num_batches_tracked")))  # old checkpoints have none
    missing = [name for name in own if name not in state and not name.startswith(allowed)]
    unexpected = [name for name in state if name not in own and not name.startswith(beside)]
    shapes = {name: (tuple(state[name].shape), tuple(own[name].shape)) for name in own if name in state}
    check_keys(path, missing, unexpected, {name: pair for name, pair in shapes.items() if pair[0] != pair[1]})
    model.load_state_dict({name: state[name] for name in own if name in state}, strict=False)


def check_keys(
    path: Path,
    missing: list[str],
    unexpected: list[str],
    reshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None,
) -> None:
    """Refuse weights that do not fit the architecture.

    Args:
        reshaped: parameters of another shape: the file's and the architecture's.

    Raises:
        PeftmarkError: where a parameter is missing, left over or of another shape; it names the first ones.
    """
    parts = [
        f"{len(names)} {what} (e.g. {names[0]})"
        for what, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    for name, (read, wanted) in list((reshaped or {}).items())[:1]:
        parts.append(f"{len(reshaped or {})} of another shape (e.g. {name}: {read} in the file, {wanted} in the model)")
    if parts:
        raise PeftmarkError(f"{path} does not fit the architecture: {', '.join(parts)}")


def sha256_of(path: Path) -> str:
    """Of a file's content; remembered while its size and modification time stay."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
