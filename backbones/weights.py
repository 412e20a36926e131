"""Weights files: where they are looked for, how they are read, and what is said when they cannot be had."""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ..errors import PeftmarkError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def weights_folder() -> Path:
    """``$PEFTMARK_WEIGHTS``, by default ``~/.cache/peftmark/weights``."""
    return Path(os.environ.get("PEFTMARK_WEIGHTS", Path.home() / ".cache" / "peftmark" / "weights"))


def local_weights(name: str) -> Path | None:
    """The file of a backbone's weights in the weights folder, e.g. ``timm/vit_tiny_patch16_224.augreg_in21k.pth``."""
    for suffix in SUFFIXES:
        path = weights_folder() / f"{name}{suffix}"
        if path.is_file():
            return path
    return None


def cannot_download(name: str, cause: Exception) -> PeftmarkError:
    """The one line a user gets where a hub cannot be reached."""
    target = weights_folder() / f"{name}.safetensors"
    return PeftmarkError(
        f"the weights of {name} are not here and cannot be downloaded ({type(cause).__name__}): put them at "
        f"{target} (or .pth), or name a file: --backbone {name}@FILE"
    )


def tokenizer_folder(name: str) -> Path:
    """Where in the weights folder a hub's tokenizer is looked for first, e.g. ``tokenizers/timm/ViT-B-16-SigLIP``."""
    return weights_folder() / "tokenizers" / name


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a ``.safetensors`` file, a torch checkpoint, tensors only (a pickle that needs more is refused), or a
    TorchScript archive, of which only the state is taken (OpenAI published CLIP so).

    Raises:
        PeftmarkError: where the file is damaged or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if _is_torchscript(path):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch deprecates the format, not the files
                return dict(torch.jit.load(path, map_location="cpu").state_dict())
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has errors of its own
        reason = str(error).strip().split("\n")[0][:160]
        raise PeftmarkError(f"{path} cannot be read as weights ({reason}): is the file whole?") from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise PeftmarkError(f"{path} holds no state dict (a dict of tensors)")
    return cast(dict[str, Tensor], loaded)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def check_keys(path: Path, missing: list[str], unexpected: list[str]) -> None:
    """Refuse weights that do not fit the architecture.

    Raises:
        PeftmarkError: where a parameter is missing or left over; it names the first ones.
    """
    if missing or unexpected:
        parts = [
            f"{len(names)} {what} (e.g. {names[0]})"
            for what, names in (("missing", missing), ("unexpected", unexpected))
            if names
        ]
        raise PeftmarkError(f"{path} does not fit the architecture: {', '.join(parts)}")


def sha256_of(path: Path) -> str:
    """Of a file's content; remembered while its size and modification time stay."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
