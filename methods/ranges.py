"""Ranges of hyper-parameters, declared on a method's fields (``rank: Count = 8``) and checked in one place.

A range is a `msgspec.Meta`; what is common has a name here, what is not is written out on the field
(``Annotated[float, msgspec.Meta(ge=0, le=1)]``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_origin, get_type_hints
from weakref import WeakKeyDictionary

from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]
"""How many of something that there must be."""

Natural = Annotated[int, Meta(ge=0)]
"""How many, perhaps none."""

Share = Annotated[float, Meta(gt=0, le=1)]
"""Of a whole, not nothing of it."""

Rate = Annotated[float, Meta(ge=0, lt=1)]
"""How often something is dropped."""

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]

NOT_EMPTY = Meta(min_length=1)
"""Of a tuple or a string: ``Annotated[tuple[Projection, ...], NOT_EMPTY]``."""

_WORDS = {
    "ge": "at least {}",
    "gt": "above {}",
    "le": "at most {}",
    "lt": "below {}",
    "multiple_of": "a multiple of {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
    "pattern": "matching {}",
}


_read: WeakKeyDictionary[type, Mapping[str, Any]] = WeakKeyDictionary()


def hyperparameters(kind: type) -> Mapping[str, Any]:
    """Types of a dataclass's fields, by name, with the ranges that are declared on them."""
    if kind not in _read:
        hints = get_type_hints(kind, include_extras=True)
        _read[kind] = MappingProxyType({item.name: hints[item.name] for item in fields(kind) if item.init})
    return _read[kind]


def range_of(hint: Any) -> str:
    """What is declared on a type, in words; the empty string where nothing is.

    >>> range_of(Count | None), range_of(Share), range_of(int)
    ('at least 1', 'above 0, at most 1', '')
    >>> range_of(Annotated[tuple[Count, ...], NOT_EMPTY])
    'not empty, each at least 1'
    """
    if get_origin(hint) is Annotated:
        inner, *metas = get_args(hint)
        words = [
            "not empty" if (name, limit) == ("min_length", 1) else text.format(limit)
            for meta in metas
            if isinstance(meta, Meta)
            for name, text in _WORDS.items()
            if (limit := getattr(meta, name)) is not None
        ]
        return ", ".join([*words, *([range_of(inner)] if range_of(inner) else [])])
    inside = list(dict.fromkeys(range_of(part) for part in get_args(hint)))
    words = [text for text in inside if text]
    return ", ".join(f"each {text}" for text in words) if get_origin(hint) is tuple else ", ".join(words)
