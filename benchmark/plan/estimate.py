"""What a plan will take: images to be seen, and hours at a given throughput."""

from __future__ import annotations

from dataclasses import dataclass

from ...registry import TASKS
from .runs import Plan


@dataclass(frozen=True)
class Estimate:
    """Of all runs that were asked for, with those that wait for data, without those that are finished already.

    Attributes:
        runs: whose images are counted. unknown: other runs, of tasks that cannot say how many images they have.
        trained: images that training steps see, each as often as it is seen. evaluated: images of evaluations.
    """

    runs: int
    unknown: int
    trained: int
    evaluated: int

    def hours(self, throughput: float) -> float:
        """At `throughput` training images a second. An upper bound: evaluation is taken to be as slow as training, and
        nothing for untouched first layers, whose outputs are kept."""
        return (self.trained + self.evaluated) / throughput / 3600


def estimate(plan: Plan) -> Estimate:
    """From the tasks' sizes, the protocol's epochs and the methods' phases; no data need be there."""
    runs = unknown = trained = evaluated = 0
    for (name, epochs, stage), count in plan.wanted.items():
        sizes = TASKS[name](name).expected_sizes()
        if sizes is None or plan.protocol is None:
            unknown += count
            continue
        train, validation, test = sizes
        both = stage == "final" or (stage is None and plan.protocol.final_training == "train+validation")
        runs += count
        trained += round(count * epochs * plan.protocol.epochs * (train + validation * both))
        evaluated += count * (test * (stage != "trial") + validation * (not both))
    return Estimate(runs, unknown, trained, evaluated)
