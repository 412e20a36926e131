"""Search spaces: every method has one, its values are valid, and none changes how much is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import peftmark
from peftmark import METHODS
from peftmark.benchmark.support import native_methods
from peftmark.errors import Unsupported
from peftmark.methods import make_method
from peftmark.methods.search_space import LEARNING_RATE, LEARNING_RATES, LogUniform, Uniform, search_space

NEAR_ONE = 1 - 2**-24
WITH_OWN = [name for name in native_methods() if set(make_method(name).search_space()) - {LEARNING_RATE}]


@given(st.floats(0, NEAR_ONE))
def test_values_lie_between_the_bounds(share: float) -> None:
    assert 1e-4 <= LogUniform(1e-4, 1e-1).at(share) <= 1e-1
    assert 0.1 <= Uniform(0.1, 0.9).at(share) <= 0.9


def test_a_logarithm_is_uniform() -> None:
    assert [LogUniform(1e-4, 1.0).at(share) for share in (0, 0.25, 0.5, 0.75)] == [1e-4, 1e-3, 1e-2, 1e-1]
    assert [Uniform(0, 2).at(share) for share in (0, 0.25, 0.5, 0.75)] == [0, 0.5, 1, 1.5]


@pytest.mark.parametrize("name", native_methods())
def test_every_method_s_space(name: str) -> None:
    """The rate comes first: points' first coordinates are spread best."""
    made = make_method(name)
    space = search_space(name, made)
    assert next(iter(space)) == LEARNING_RATE
    for share in (0.0, 0.3, NEAR_ONE):
        found = {key: dimension.at(share) for key, dimension in space.items()}
        assert found.pop(LEARNING_RATE) > 0
        assert make_method(name, found).config() == {**made.config(), **found}


@pytest.mark.parametrize("name", WITH_OWN)
def test_the_default_lies_within(name: str) -> None:
    """A search that could not find the default again would be one of something else."""
    made = make_method(name)
    for key, dimension in made.search_space().items():
        if key != LEARNING_RATE:
            low, high = dimension.at(0.0), dimension.at(NEAR_ONE)
            assert low <= getattr(made, key) <= high, key


@pytest.mark.parametrize("name", WITH_OWN)
def test_no_trial_trains_more_or_less_than_the_default(name: str) -> None:
    def size(share: float | None) -> int:
        config = {} if share is None else {k: d.at(share) for k, d in make_method(name).search_space().items()}
        clip = "image" not in METHODS.entry(name).metadata["tracks"]
        what = {"class_names": ["a", "b"]} if clip else {"num_classes": 2}
        model = peftmark.adapt("embedded/clip" if clip else "embedded/vit", make_method(name, config), **what)
        return model.trainable_parameters()

    try:
        default = size(None)
    except Unsupported as reason:
        pytest.skip(str(reason))
    assert [size(0.0), size(NEAR_ONE)] == [default, default]


def test_families_have_a_range() -> None:
    assert {METHODS.entry(name).family for name in METHODS.names()} <= set(LEARNING_RATES)


def test_what_trains_whole_matrices_takes_smaller_steps() -> None:
    for name in ("full", "attention_only", "partial"):
        assert str(search_space(name, make_method(name))[LEARNING_RATE]) == "log-uniform from 3e-05 to 0.01"
    assert str(search_space("bitfit", make_method("bitfit"))[LEARNING_RATE]) == "log-uniform from 0.0003 to 0.1"


def test_a_user_s_family(toy_plugin: Path) -> None:
    assert LEARNING_RATE in search_space("toy_full", make_method("toy_full"))
