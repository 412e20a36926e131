"""What an objective is: the output it reads, the head on it, the loss, how outputs become predictions, and a metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ...backbones import Output
from ...errors import Unsupported
from ..targets import Targets

if TYPE_CHECKING:
    from ..task import Split


class Metric(ABC):
    """A figure that accumulates over the batches of a split.

    Class attributes:
        name, unit: of the figure. higher_is_better: whether a higher one is a better one.
    """

    name: ClassVar[str]
    unit: ClassVar[str] = "percent"
    higher_is_better: ClassVar[bool] = True

    @abstractmethod
    def update(self, predictions: Mapping[str, Tensor], targets: Targets) -> None:
        """Count a batch in: what `Objective.decode` made of its outputs, and its targets, both on the CPU."""

    @abstractmethod
    def value(self) -> float:
        """The figure of all that was counted in."""


class Objective(ABC):
    """What a kind of task asks of a model. A task gives its own (`Task.objective`), methods read ``model.objective``.

    Class attributes:
        output: what of the backbone is read: ``pooled`` (N, D), ``projected`` (N, E) in the space shared with text, or
            ``tokens``, the patch tokens on their grid (N, rows, columns, D).

    Attributes:
        names: what images are told apart by in the space shared with text, written into `templates` (with {} for the
            name); None where a head reads the output.
    """

    output: ClassVar[Output] = "pooled"
    names: tuple[str, ...] | None = None
    templates: tuple[str, ...] = ()

    @abstractmethod
    def head(self, width: int) -> nn.Module:
        """What maps the backbone's output, of `width` channels (last), to the model's outputs.

        Its learning rate is the protocol's, apart from the method's. It is not asked for where there are `names`.
        """

    def reset_head(self, head: nn.Module) -> None:
        """Draw a head's numbers: linear layers from a normal of .02, cut off at twice that; their biases are zero."""
        for module in head.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Targets) -> Tensor:
        """The model's outputs (N, …) and the batch's targets -> the training loss (), the mean over the batch."""

    @abstractmethod
    def decode(self, outputs: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Outputs (N, …) of a test -> what is kept of each example, by name, all (N, …) on the outputs' device.

        ``predicted`` is among them: what the record's `predictions_sha256` is of. The others are the objective's own,
        e.g. ``target``, ``probability_true``, ``probability_max``. Rows of any number an example are one tensor of all
        rows, with a second, ``…_lengths`` (N,), of how many each has.
        """

    @abstractmethod
    def metric(self) -> Metric:
        """A new one, of nothing yet."""

    @abstractmethod
    def made_up_targets(self, n: int) -> Targets:
        """Targets of `n` made-up examples, to measure costs on."""

    def combine_views(self, outputs: Tensor) -> Tensor:
        """Outputs of several views of each example (N, V, …) -> the outputs of the example (N, …).

        Raises:
            Unsupported: where views of an example say nothing together.
        """
        raise Unsupported(f"{type(self).__name__} does not combine the views of an example")

    def pose(self, model: nn.Module, split: Split) -> None:  # noqa: B027  # nothing, unless an objective says more
        """Make the model answer what a split asks, e.g. for its classes; the next split is posed again."""

    def chance(self, split: Split) -> float | None:
        """The metric's value in percent if one guesses; None where that is not known, or not in percent."""
        return None

    def caption(self, split: Split, index: int) -> str:
        """An example's target, for people: under its picture."""
        return ""

    def one_of_each(self, split: Split) -> list[int]:
        """Examples, by index, that show what kinds of targets there are; none where there are no kinds."""
        return []

    def facts(self) -> dict[str, Any]:
        """What a task's card says of the objective, as plain data."""
        return {}
