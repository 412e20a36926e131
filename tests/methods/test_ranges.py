"""Ranges of hyper-parameters: the value just outside is refused in one line that says what is allowed, the one just
inside is taken."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import pytest
from msgspec import Meta

from peftmark import METHODS, PeftmarkError
from peftmark.methods import make_method
from peftmark.methods.ranges import NOT_EMPTY, Count, Positive, Rate, Share, hyperparameters, range_of

NAMES = [name for name in METHODS.names() if not name.endswith("/*")]
TOGETHER: dict[tuple[str, str], dict[str, Any]] = {("repadapter", "bottleneck"): {"groups": 1}}
"""What has to be set beside a value on the edge."""


def edges(hint: Any, default: Any) -> Iterator[tuple[Any, Any]]:
    """(inside, outside) for each limit of a type."""
    if get_origin(hint) is not Annotated:
        if get_origin(hint) is tuple:
            for inside, outside in edges(get_args(hint)[0], default[0]):
                yield (inside, *default[1:]), (*default[:-1], outside)
        else:  # of ``Count | None``
            for part in get_args(hint):
                yield from edges(part, default)
        return
    inner, meta = get_args(hint)
    step = int if inner is int else float
    if meta.ge is not None:
        yield step(meta.ge), meta.ge - 1 if inner is int else math.nextafter(meta.ge, -math.inf)
    if meta.gt is not None:
        yield math.nextafter(meta.gt, math.inf), step(meta.gt)
    if meta.le is not None:
        yield step(meta.le), math.nextafter(meta.le, math.inf)
    if meta.lt is not None:
        yield math.nextafter(meta.lt, -math.inf), step(meta.lt)
    if meta.min_length is not None:
        yield default, type(default)()
        yield from edges(inner, default)


EXPECTED = {
    **dict.fromkeys(("rank", "bottleneck", "prompt_length", "hidden", "n_ctx", "depth", "reduction"), "at least 1"),
    **dict.fromkeys(("batch_size", "epochs", "samples", "groups", "views"), "at least 1"),
    **dict.fromkeys(("dropout", "drop_path"), "at least 0, below 1"),
    **dict.fromkeys(("temperature", "logit_scale"), "above 0"),
    "keep": "above 0, at most 1",
    "targets": "not empty",
}
"""Of fields that several methods have."""

CASES = [
    (name, field, inside, outside)
    for name in NAMES
    for field, hint in hyperparameters(METHODS[name]).items()
    if range_of(hint)
    for inside, outside in edges(hint, getattr(make_method(name), field))
]


def test_there_are_ranges() -> None:
    assert len({name for name, *_ in CASES}) > 40
    assert len(CASES) > 100


@pytest.mark.parametrize("name", NAMES)
def test_fields_of_one_name_have_one_range(name: str) -> None:
    """In a new method, too."""
    hints = hyperparameters(METHODS[name])
    assert {field: range_of(hint) for field, hint in hints.items() if field in EXPECTED} == {
        field: EXPECTED[field] for field in hints if field in EXPECTED
    }


@pytest.mark.parametrize(("name", "field", "inside", "outside"), CASES)
def test_the_edge_of_a_range(name: str, field: str, inside: Any, outside: Any) -> None:
    """By ``--set`` and by the class itself."""
    others = TOGETHER.get((name, field), {})
    assert getattr(make_method(name, {field: inside, **others}), field) == inside
    assert getattr(METHODS[name](**{field: inside, **others}), field) == inside
    with pytest.raises(PeftmarkError) as refused:
        make_method(name, {field: outside, **others})
    message = str(refused.value)
    assert message.startswith(f"method {name!r}: {field}={outside!r} is not valid: Expected `")
    assert "\n" not in message
    with pytest.raises(ValueError, match=f"^{field}=") as raised:
        METHODS[name](**{field: outside, **others})
    assert message == f"method {name!r}: {raised.value}"


def test_ranges_in_words() -> None:
    assert range_of(Count | None) == "at least 1"
    assert range_of(Rate) == "at least 0, below 1"
    assert range_of(Positive) == "above 0"
    assert range_of(tuple[Share, ...]) == "each above 0, at most 1"
    assert range_of(Annotated[str, NOT_EMPTY]) == "not empty"
    assert range_of(Annotated[str, Meta(min_length=2)]) == "at least 2 long"
    assert range_of(Annotated[int, Meta(multiple_of=2, le=8)]) == "at most 8, a multiple of 2"
    assert range_of(tuple[int, str]) == range_of(float) == ""


def test_a_value_that_only_other_values_forbid() -> None:
    with pytest.raises(PeftmarkError, match=r"method 'repadapter': bottleneck=3 must be a multiple of groups=2"):
        make_method("repadapter", {"bottleneck": 3})
    with pytest.raises(PeftmarkError, match=r"method 'st_adapter': kernel=\(3, 2, 1\) must be odd"):
        make_method("st_adapter", {"kernel": (3, 2, 1)})
