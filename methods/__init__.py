"""The zoo: one file a method, in folders by taxonomy, and `make_model`, the one door from anatomy to model."""

from .adapted_model import AdaptedModel
from .classifiers import OpenVocabularyClassifier
from .headed_model import HeadedModel
from .method import Batches, Context, Method, Phase, Variant, Views, make_method
from .models import make_model
from .scoring_method import Scores, ScoringMethod, Selection, check_selection

__all__ = [
    "AdaptedModel",
    "Batches",
    "Context",
    "HeadedModel",
    "Method",
    "OpenVocabularyClassifier",
    "Phase",
    "Scores",
    "ScoringMethod",
    "Selection",
    "Variant",
    "Views",
    "check_selection",
    "make_method",
    "make_model",
]
