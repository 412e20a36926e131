"""One label an example, by the names of the classes: those of a test may be others than those of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import nn

from .classification import Classification

if TYPE_CHECKING:
    from ..task import Split


class Named(Protocol):
    """A model that tells classes apart by their names."""

    class_names: tuple[str, ...]

    def set_class_names(self, class_names: Sequence[str]) -> None: ...


class OpenVocabulary(Classification):
    """Which of the classes of these names: logits (N, classes) are cosines of image and text features, scaled."""

    output = "projected"

    def __init__(self, class_names: Sequence[str], templates: Sequence[str]) -> None:
        super().__init__(len(class_names))
        self.names: tuple[str, ...] = tuple(class_names)
        self.templates = tuple(templates)

    def head(self, width: int) -> nn.Module:
        raise TypeError("names take the place of a head")

    def facts(self) -> dict[str, Any]:
        """With `own_table`: few shots, base and new classes are benchmarks, over which no mean is taken."""
        return {**super().facts(), "own_table": True}

    def pose(self, model: nn.Module, split: Split) -> None:
        """Make the model tell the split's classes apart."""
        named = cast(Named, model)
        if named.class_names != split.class_names:
            named.set_class_names(split.class_names)
