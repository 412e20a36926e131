"""How figures are spread over methods."""

from __future__ import annotations

import pytest

from peftmark.leaderboard.drawings.strip import WIDTH, strip


def test_dots_quartiles_and_chance() -> None:
    points = [(value, f"m{value}", "other", "#") for value in (60.0, 20.0, 30.0, 40.0, 50.0)]
    drawn = strip(points, 10.0)
    assert drawn is not None
    assert [(dot.value, dot.x) for dot in drawn.dots] == [
        (20.0, 128.0), (30.0, 256.0), (40.0, 384.0), (50.0, 512.0), (60.0, 640.0),
    ]  # fmt: skip
    assert (drawn.low, drawn.high, drawn.quartiles) == (10.0, 60.0, (30.0, 40.0, 50.0))
    assert drawn.at == (256.0, 384.0, 512.0) and drawn.chance == 0.0
    assert all(0 < dot.y < 56 for dot in drawn.dots)


@pytest.mark.parametrize(("chance", "shown"), [(None, None), (0.5, None), (91.0, WIDTH / 2)])
def test_chance_is_drawn_where_it_is_near(chance: float | None, shown: float | None) -> None:
    drawn = strip([(value, "m", "other", "#") for value in (90.0, 91.5, 92.0)], chance)
    assert drawn is not None and drawn.chance == shown and drawn.low == 90.0


def test_few_or_equal_figures_are_not_spread() -> None:
    assert strip([(1.0, "a", "other", "#"), (2.0, "b", "other", "#")], None) is None
    assert strip([(1.0, name, "other", "#") for name in "abc"], None) is None
