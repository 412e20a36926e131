"""Targets that are tensors and targets that are not: indexed, split, moved, joined, hashed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peftmark.errors import PeftmarkError
from peftmark.tasks import Ragged, Split, TaskData
from peftmark.tasks.targets import join

LISTS = st.lists(st.lists(st.integers(0, 99), max_size=4), min_size=1, max_size=8)


def ragged(lists: list[list[int]]) -> Ragged:
    flat = [value for each in lists for value in each]
    return Ragged(torch.tensor(flat, dtype=torch.int64).view(-1, 1), torch.tensor([len(each) for each in lists]))


def plain(targets: Ragged) -> list[list[int]]:
    return [targets.of(index).flatten().tolist() for index in range(len(targets))]


@given(LISTS, st.data())
def test_rows_stay_with_their_example(lists: list[list[int]], data: st.DataObject) -> None:
    targets = ragged(lists)
    indices = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=10))
    chosen = targets[torch.tensor(indices, dtype=torch.int64)]
    assert plain(chosen) == [lists[index] for index in indices]
    size = data.draw(st.integers(1, 9))
    parts = targets.split(size)
    assert [row for part in parts for row in plain(part)] == lists
    assert [len(part) for part in parts[:-1]] == [size] * (len(parts) - 1)


@given(LISTS, LISTS)
def test_joined_are_the_first_then_the_others(one: list[list[int]], other: list[list[int]]) -> None:
    joined = join(ragged(one), ragged(other))
    assert isinstance(joined, Ragged)
    assert plain(joined) == one + other


def test_lengths_have_to_add_up() -> None:
    with pytest.raises(PeftmarkError, match="the targets' lengths add up to 3, not 2 rows"):
        Ragged(torch.zeros(2, 1), torch.tensor([1, 2]))


def test_kinds_are_not_mixed() -> None:
    with pytest.raises(PeftmarkError, match="a tensor and Ragged cannot be one split's targets"):
        join(torch.zeros(2), ragged([[1]]))
    with pytest.raises(PeftmarkError, match="ragged targets and Tensor cannot be one split's targets"):
        join(ragged([[1]]), torch.zeros(2))


def data(targets: Ragged) -> TaskData:
    split = Split(torch.zeros(len(targets), 3, 2, 2, dtype=torch.uint8), targets)
    return TaskData(split, split, {"test": split})


def test_a_hash_sees_whose_a_row_is() -> None:
    assert data(ragged([[1], [2]])).sha256() == data(ragged([[1], [2]])).sha256()
    assert data(ragged([[1], [2]])).sha256() != data(ragged([[1, 2], []])).sha256()
    assert data(ragged([[1], [2]])).sha256() != data(ragged([[1], [3]])).sha256()


def test_training_and_validation_together() -> None:
    both = data(ragged([[1], [], [2, 3]])).train_and_validation()
    assert isinstance(both.targets, Ragged)
    assert plain(both.targets) == [[1], [], [2, 3]] * 2
    assert both.inputs.shape == (6, 3, 2, 2)


def test_one_target_an_example() -> None:
    with pytest.raises(PeftmarkError, match="3 inputs have 1 targets: give one each"):
        Split(torch.zeros(3, 3, 2, 2), ragged([[1]]))
