"""What an exception becomes in a record: a status, and one line that says where and why."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Literal

import torch

from ...errors import PeftmarkError, Unsupported
from ...results import ErrorInfo

_CHARACTERS = 10_000
"""Of a message: a record of any size would not be read again."""


class Diverged(Exception):
    """The training loss became infinite or not a number."""


def status_of(error: BaseException) -> Literal["unsupported", "diverged", "oom", "error"]:
    if isinstance(error, Unsupported):
        return "unsupported"
    if isinstance(error, Diverged):
        return "diverged"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
        return "oom"
    return "error"


def error_info(error: BaseException, phase: str) -> ErrorInfo:
    """The message; of an unforeseen error also where it was raised."""
    message = str(error).strip() or type(error).__name__
    if not isinstance(error, (PeftmarkError, Diverged)):
        frames = traceback.extract_tb(error.__traceback__)
        if frames:
            message += f" ({Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name})"
    if len(message) > _CHARACTERS:
        message = f"{message[:_CHARACTERS]} …"
    message = message.encode(errors="backslashreplace").decode()  # a file's name may be no text; a record is
    return ErrorInfo(phase=phase, type=type(error).__name__, message=message)
