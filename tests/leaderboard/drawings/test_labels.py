"""Where names stand: never on anything, never nearer to another point."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from peftmark.leaderboard.drawings.labels import distance, overlap, place_labels

FRAME = (0.0, 0.0, 300.0, 200.0)
HALF = 3.0

coordinates = st.tuples(st.integers(0, 300), st.integers(0, 200))


@given(st.lists(st.tuples(coordinates, st.integers(5, 120)), max_size=25))
def test_labels_never_collide(points: list[tuple[tuple[int, int], int]]) -> None:
    anchors = [anchor for anchor, _ in points]
    boxes = place_labels(anchors, [(width, 10.0) for _, width in points], anchors, HALF, [], FRAME)
    placed = [(box, anchor) for box, anchor in zip(boxes, anchors, strict=True) if box is not None]
    assert not any(overlap(one, other) for (one, _), (other, _) in itertools.combinations(placed, 2))
    for box, own in placed:
        assert FRAME[0] <= box[0] and box[2] <= FRAME[2] and FRAME[1] <= box[1] and box[3] <= FRAME[3]
        assert all(not overlap(box, (x - HALF, y - HALF, x + HALF, y + HALF)) for x, y in anchors)
        assert all(distance(box, own) <= distance(box, other) for other in anchors)


def test_what_has_no_room_is_hidden_the_last_first() -> None:
    anchors = [(150.0, 100.0)] * 30
    boxes = place_labels(anchors, [(40.0, 10.0)] * 30, anchors, HALF, [], FRAME)
    assert boxes[0] == (150 + 1.4 * HALF, 95.0, 190 + 1.4 * HALF, 105.0)  # right of it
    assert boxes[-1] is None and 4 <= sum(box is not None for box in boxes) <= 12


def test_lines_are_left_alone_where_there_is_room() -> None:
    level = [(150.0, 99.0, 300.0, 101.0)]
    [box] = place_labels([(150.0, 100.0)], [(40.0, 10.0)], [(150.0, 100.0)], HALF, level, FRAME)
    assert box is not None and not overlap(box, level[0])
