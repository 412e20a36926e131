"""Where a method sits, drawn of what its card tells."""

from __future__ import annotations

from typing import Any

import pytest

from peftmark.leaderboard.drawings.block import Picture, described, draw, places_of


def facts(parts: Any, **more: Any) -> dict[str, Any]:
    return {"places": {"model": "embedded/vit", "blocks": 6, "parts": parts, **more}}


def picture(parts: dict[str, dict[str, int]]) -> Picture:
    places = places_of(facts(parts))
    assert places is not None
    return draw(places)


def boxes(drawn: Picture) -> dict[str, tuple[str, str]]:
    return {box.label: (box.kind, box.how) for box in drawn.boxes if box.kind != "frozen"}


def test_low_rank_updates() -> None:
    found = boxes(picture({"q": {"delta": 6}, "v": {"delta": 6}, "head": {"weight": 1}}))
    assert found == {"q": ("inserted", "+ ΔW"), "v": ("inserted", "+ ΔW"), "head": ("trains", "trains")}


def test_parts_that_train() -> None:
    parts = {"fc1": {"bias": 6}, "proj": {"weight": 6, "bias": 6}, "v": {"entries": 3}}
    assert boxes(picture(parts)) == {
        "fc1": ("trains", "bias trains"),
        "projection": ("trains", "trains"),
        "v": ("trains", "some train"),
    }
    assert picture(parts).chosen and not picture({}).chosen


def test_what_is_in_slots_has_boxes_of_its_own_where_it_runs() -> None:
    slots = {"serial": 6, "parallel": 6, "after_add": 6}
    found = picture({"mlp": slots, "attention": {"prefix": 6, "query": 6}, "block": {"before": 1, "carry": 5}})
    inserted = {box.label: box for box in found.boxes if box.kind == "inserted"}
    assert set(inserted) == {"adapter", "beside", "on the sum", "more keys and values", "on q", "on the tokens"} | {
        "entry to exit"
    }
    frozen = {box.label: box for box in found.boxes if box.kind == "frozen"}
    assert frozen["fc2"].y < inserted["adapter"].y < found.sums[1][1] < inserted["on the sum"].y
    assert inserted["on the tokens"].y < found.sums[0][1]
    assert inserted["entry to exit"].how == "5 of 6 blocks"
    assert frozen["q"].y < inserted["on q"].y < frozen["softmax(q kᵀ) v"].y


@pytest.mark.parametrize("slot", ["serial", "parallel", "parallel_norm", "after_add"])
@pytest.mark.parametrize("branch", ["attention", "mlp"])
def test_boxes_do_not_overlap(branch: str, slot: str) -> None:
    drawn = picture({branch: {slot: 6}, "block": {"before": 6}, "text": {"prompt": 1}, "norm": {"before": 1}})
    for one in drawn.boxes:
        assert one.x >= 0 and one.x + one.width <= drawn.width and one.y + one.height <= drawn.height
        for other in drawn.boxes:
            apart = one.x + one.width <= other.x or other.x + other.width <= one.x
            assert one is other or apart or one.y + one.height <= other.y or other.y + other.height <= one.y


def test_in_words() -> None:
    parts = {
        "head": {"weight": 1},
        "norm": {"weight": 1, "bias": 1},
        "fc1": {"entries": 6, "delta": 2},
        "mlp": {"new": 6},
        "text.q": {"delta": 2},
    }
    places = places_of(facts({**parts, "odd": {"weight": 1}}, text_blocks=3))
    assert places is not None
    assert described(places) == [
        ("fc1", "some entries train; weight change added, in 2 of 6 blocks"),
        ("MLP", "new"),
        ("final norm", "weights and biases train"),
        ("head", "weights train"),
        ("odd", "weights train"),
        ("queries of the text tower", "weight change added, in 2 of 3 blocks"),
    ]


@pytest.mark.parametrize("places", [None, "here", {"model": 1}, {"model": "m", "blocks": 6, "parts": {"q": [1]}}])
def test_other_facts_are_no_places(places: Any) -> None:
    assert places_of({"places": places}) is None
    assert places_of({}) is None
