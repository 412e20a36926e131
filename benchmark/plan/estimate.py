"""What a plan will take: images to be seen, and hours at a given throughput."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...registry import TASKS
from ...results import RunRecord
from ...results.tuning import tuning_of
from .protocol import Protocol, protocol_of
from .runs import Plan, Stage


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
    for (name, epochs, stage, watched), count in plan.wanted.items():
        images = _images(name, epochs, stage, watched, plan.protocol) if plan.protocol else None
        if images is None:
            unknown += count
            continue
        runs += count
        trained += count * images[0]
        evaluated += count * images[1]
    return Estimate(runs, unknown, trained, evaluated)


def images_per_second(records: Iterable[RunRecord]) -> float | None:
    """How many images a worker trained on and evaluated a second; None where no run tells."""
    images, seconds = 0, 0.0
    for record in records:
        tuning = tuning_of(record.spec)
        seen = None
        ended = record.trial is not None and record.trial.pruned
        if record.status == "ok" and not record.phases and not ended:
            protocol = protocol_of(record.spec.protocol)
            stage, watched = (tuning.stage, bool(tuning.stop_below)) if tuning else (None, False)
            seen = _images(record.spec.task.name, 1.0, stage, watched, protocol)
        if seen is not None:
            images += sum(seen)
            seconds += record.time_s.train + record.time_s.evaluation
    return images / seconds if seconds else None


def _images(task: str, epochs: float, stage: Stage, watched: bool, protocol: Protocol) -> tuple[int, int] | None:
    """That a run trains on, each as often as it is seen, and evaluates; None where the task cannot say."""
    sizes = TASKS[task](task).expected_sizes() if task in TASKS else None
    if sizes is None:
        return None
    train, validation, test = sizes
    both = stage == "final" or (stage is None and protocol.final_training == "train+validation")
    trained = round(epochs * protocol.epochs * (train + validation * both))
    looks = max(round(epochs * protocol.epochs), 1) if watched else 1
    return trained, test * (stage != "trial") + validation * looks * (not both)
