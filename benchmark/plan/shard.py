"""A slice of a plan: what one of several machines does of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...errors import PeftmarkError
from ...results import RunSpec
from ...results.tuning import search_key, tuning_of
from .runs import Spec


@dataclass(frozen=True)
class Shard:
    """Slice `index`, counted from 1, of `count`.

    The slices of a plan are disjoint and together the whole of it; which one a run is in depends on nothing but its
    spec, so it stays there when a plan grows, and whatever is finished already.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Of ``3/16``.

        Raises:
            PeftmarkError: where it is not such a fraction.
        """
        index, slash, count = text.partition("/")
        digits = index.isascii() and index.isdigit() and count.isascii() and count.isdigit()
        if not (slash and digits and len(index) < 10 > len(count) and 1 <= int(index) <= int(count)):
            raise PeftmarkError(f"--shard {text}: write I/N with I from 1 to N, e.g. --shard 3/16")
        return cls(int(index), int(count))

    def of(self, specs: Iterable[Spec]) -> list[Spec]:
        """Those in the slice, in their order."""
        return [spec for spec in specs if self.holds(spec)]

    def holds(self, spec: Spec) -> bool:
        """Whether a run is in the slice."""
        # what is chosen among, and the runs of what was chosen, are in one slice, so that it can choose for itself
        key = search_key(spec)[:16] if isinstance(spec, RunSpec) and tuning_of(spec) is not None else spec.id
        return int(key, 16) % self.count == self.index - 1
