"""The one figure of a task with several tests."""

from __future__ import annotations

from collections.abc import Mapping


def target_mean(tests: Mapping[str, float]) -> float:
    """The mean over all tests but ``source`` (CoOp's protocol for both kinds of transfer)."""
    targets = [value for name, value in tests.items() if name != "source"]
    return sum(targets) / len(targets)


def harmonic_mean(tests: Mapping[str, float]) -> float:
    """Of the accuracies on ``base`` and ``new`` classes (CoCoOp)."""
    base, new = tests["base"], tests["new"]
    return 2 * base * new / (base + new) if base + new else 0.0
