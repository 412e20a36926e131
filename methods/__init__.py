"""The zoo: one file a method, in folders by taxonomy, and `adapt`, which applies one to a backbone."""

from .adapted_model import AdaptedModel
from .adapting import DEFAULT_TEMPLATES, adapt
from .classifiers import Classifier, OpenVocabularyClassifier
from .method import Batches, Context, Method, Phase, Variant, Views, make_method

__all__ = [
    "DEFAULT_TEMPLATES",
    "AdaptedModel",
    "Batches",
    "Classifier",
    "Context",
    "Method",
    "OpenVocabularyClassifier",
    "Phase",
    "Variant",
    "Views",
    "adapt",
    "make_method",
]
