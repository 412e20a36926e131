"""Tasks: data, splits, and the objective that is asked of a model."""

from .objectives import (
    Accuracy,
    Classification,
    Metric,
    Objective,
    OpenVocabulary,
    clip_length_of_track,
    objective_of_track,
)
from .targets import Ragged, TargetList, Targets, tensors_of
from .task import Fingerprint, Split, Task, TaskData, draw_of, make_task

__all__ = [
    "Accuracy",
    "Classification",
    "Fingerprint",
    "Metric",
    "Objective",
    "OpenVocabulary",
    "Ragged",
    "Split",
    "TargetList",
    "Targets",
    "Task",
    "TaskData",
    "clip_length_of_track",
    "draw_of",
    "make_task",
    "objective_of_track",
    "tensors_of",
]
