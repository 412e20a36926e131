"""How a process on a CPU keeps and returns memory."""

from __future__ import annotations

import ctypes
from typing import Any

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Of glibc's ``malloc.h``."""


def keep_freed_memory() -> None:
    """Reuse what is freed from now on, in place of giving it back to the system at once.

    A training step takes and frees the same gigabytes as the one before, and glibc maps every large tensor anew, whose
    pages the kernel then clears one by one: for a convolutional network that can take as long as the step itself.
    Other C libraries than glibc are left as they are.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, -1)


def return_freed_memory() -> None:
    """Give the system what is free now: other processes may need it."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> Any | None:
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has no such handle
        return None
    return libc if hasattr(libc, "gnu_get_libc_version") else None
