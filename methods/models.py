"""The one door: an anatomy, a method and an objective -> an adapted model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..backbones import Anatomy
from .adapted_model import AdaptedModel
from .classifiers import OpenVocabularyClassifier
from .headed_model import HeadedModel
from .method import Method

if TYPE_CHECKING:
    from ..tasks import Objective


def make_model(anatomy: Anatomy, method: Method, objective: Objective, num_frames: int | None = None) -> AdaptedModel:
    """What `adapt`, a run, a profile and the table of support make: it tells names apart, or has the objective's head.

    Args:
        anatomy: the model takes it over.
        num_frames: T, where inputs are clips (N, T, …).

    Raises:
        Unsupported: where the method or the objective cannot work on the backbone.
    """
    if objective.names is not None:
        return OpenVocabularyClassifier(anatomy, method, objective)
    return HeadedModel(anatomy, method, objective, num_frames)
