"""The errors a user can cause: one line each, saying what to do."""

from __future__ import annotations


class PeftmarkError(Exception):
    """A mistake its user can mend. The command line prints the message alone, without a traceback."""


class Unsupported(PeftmarkError):
    """A method and a backbone (or task) that cannot work together; becomes a record with status ``unsupported``."""


class NotMergeable(PeftmarkError):
    """Raised by ``merge()`` where a method adds something that cannot be folded into the backbone's weights."""
