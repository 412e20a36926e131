"""A row of any table is one configuration of a method: how records are gathered into rows, and rows named."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from ..results import canonical_json
from .formatting import plain

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """
    >>> grouped([1, 2, 3], lambda n: n % 2)
    {1: [1, 3], 0: [2]}
    """
    groups: defaultdict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def common_config(configs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The configuration that most records have: what a row is compared with where a method's defaults are unknown."""
    alike = grouped(configs, msgspec.json.encode)  # canonical JSON takes its time, and few are left for it
    by_json = grouped(alike.values(), lambda group: canonical_json(group[0]))
    counts = {config: sum(map(len, groups)) for config, groups in by_json.items()}
    return by_json[min(counts, key=lambda config: (-counts[config], config))][0][0]


def differences(config: Mapping[str, Any], default: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings that are not the default's.

    >>> differences({"rank": 16, "alpha": 8}, {"rank": 8, "alpha": 8})
    ('rank=16',)
    """
    absent = object()
    return tuple(f"{key}={plain(config[key])}" for key in sorted(config) if default.get(key, absent) != config[key])


def common_settings(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is set alike in all of at least one configurations.

    >>> common_settings([{"rank": 8, "scale": 10.0}, {"rank": 8, "scale": 0.1}])
    {'rank': 8}
    """
    absent = object()
    return {key: value for key, value in configs[0].items() if all(c.get(key, absent) == value for c in configs)}


def anchor(kind: str, *identity: Any) -> str:
    """An address within a page that stays the same from board to board."""
    return f"{kind}-{hashlib.sha256(canonical_json(identity)).hexdigest()[:10]}"
