"""What of a method is searched when it is tuned, and between which values: the same on every task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..registry import METHODS

if TYPE_CHECKING:
    from .method import Method

LEARNING_RATE = "learning_rate"
"""Of what the method trains: searched for every method, though it is no field of it."""


class Dimension(Protocol):
    """What one hyper-parameter may be."""

    def at(self, share: float) -> Any:
        """The value at a `share` of the way, from 0 (included) to 1 (not included)."""

    def share_of(self, value: Any) -> float:
        """The share of the way, from 0 to 1, that comes closest to a value."""

    def __str__(self) -> str:
        """In words, for the spec of a run: another range is another search."""


@dataclass(frozen=True)
class LogUniform:
    """Numbers whose logarithm is uniform, to three significant digits.

    >>> LogUniform(1e-4, 1e-1).at(0.5), str(LogUniform(1e-4, 1e-1))
    (0.00316, 'log-uniform from 0.0001 to 0.1')
    """

    low: float
    high: float

    def at(self, share: float) -> float:
        return _rounded(math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low))))

    def share_of(self, value: float) -> float:
        if value <= self.low:
            return 0.0
        return min((math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low)), 1.0)

    def __str__(self) -> str:
        return f"log-uniform from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Uniform:
    """Numbers, uniform, to three significant digits.

    >>> Uniform(0.1, 0.9).at(0.25)
    0.3
    """

    low: float
    high: float

    def at(self, share: float) -> float:
        return _rounded(self.low + share * (self.high - self.low))

    def share_of(self, value: float) -> float:
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def __str__(self) -> str:
        return f"uniform from {self.low:g} to {self.high:g}"


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


WHOLE_MATRICES = LogUniform(3e-5, 1e-2)
_FEW_PARAMETERS = LogUniform(3e-4, 1e-1)
_FACTORS = LogUniform(3e-4, 5e-2)

LEARNING_RATES: Mapping[str, Dimension] = {
    "baseline": WHOLE_MATRICES,
    "selective": _FEW_PARAMETERS,
    "additive": _FEW_PARAMETERS,
    "reparameterized": _FACTORS,
    "hybrid": _FACTORS,
    "peft": _FACTORS,
    "openvocab": _FACTORS,
    "video": _FACTORS,
}
"""By family, for AdamW. Whole matrices of a trained backbone take smaller steps than what is new, biases or scales."""


def search_space(name: str, method: Method) -> dict[str, Dimension]:
    """What is searched for a method that is registered as `name`: its learning rate first, then hyper-parameters.

    The range of the rate is the family's, unless the method has one of its own.
    """
    own = method.search_space()
    rate = own.get(LEARNING_RATE, LEARNING_RATES.get(METHODS.entry(name).family, _FACTORS))
    return {LEARNING_RATE: rate, **{key: dimension for key, dimension in own.items() if key != LEARNING_RATE}}
