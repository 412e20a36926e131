"""Objectives: what a kind of task asks of a model. One file each."""

from .classification import Accuracy, Classification
from .objective import Metric, Objective
from .openvocab import OpenVocabulary

__all__ = [
    "Accuracy",
    "Classification",
    "Metric",
    "Objective",
    "OpenVocabulary",
    "clip_length_of_track",
    "objective_of_track",
]


def objective_of_track(track: str, class_names: tuple[str, ...], templates: tuple[str, ...]) -> Objective:
    """What tasks of a track ask unless they say otherwise: ``openvocab`` by names, every other one by a head."""
    return OpenVocabulary(class_names, templates) if track == "openvocab" else Classification(len(class_names))


def clip_length_of_track(track: str) -> int | None:
    """Frames of the made-up clips on which a method of the track is profiled; None where it reads images."""
    return 8 if track == "video" else None
