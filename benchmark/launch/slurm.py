"""The Slurm launcher: an array of jobs, each of which carries out a slice of the plan by the local launcher.

Slices write records into the results folder themselves, which is on a file system that the nodes share, and append what
ended to a journal, which the driver reads. A driver that is killed leaves them running; the next one finds them.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import msgspec
import torch

from ...errors import PeftmarkError
from ...results import ErrorInfo
from ..plan.runs import Spec
from .failure import record_failure
from .outcome import Options, Outcome
from .slices import recorded
from .slurm_jobs import (
    ENDED,
    GONE,
    NEVER,
    OOM,
    Array,
    Settings,
    cancel,
    check_cluster,
    find_arrays,
    read_settings,
    states,
)

RUNS_A_TASK, MOST_TASKS = 100, 256
"""How a plan is dealt where ``launcher.tasks`` does not say it."""

_LOOK_S = 0.5
"""Between two looks at the journals."""

_ASK_S = (1.0, 15.0)
"""Between two questions for the jobs' states: at first, and at most."""

_CLOSE_S = 60.0
"""That jobs may take to end (Slurm kills them after its ``KillWait``, 30)."""

_TRIES, _TRIES_OOM, _FRUITLESS = 3, 2, 4
"""How often a run may be under way when its job ends; how often a slice's jobs may end with nothing finished."""


def launch(specs: list[Spec], options: Options) -> Generator[Outcome, None, None]:
    """Submit the runs that no job has yet, and yield each as its outcome is known; closing cancels the jobs.

    Raises:
        PeftmarkError: on settings that are wrong, where nothing can be submitted from here, or Slurm refuses it.
    """
    settings = read_settings(options.launcher)
    check_cluster(settings)
    return _launch(specs, options, settings)


def _launch(specs: list[Spec], options: Options, settings: Settings) -> Generator[Outcome, None, None]:
    driver = _Driver(specs, *_on_the_cluster(options, settings))
    try:
        driver.attach()
        driver.submit(deal(driver.unsent(), settings.tasks))
        while driver.waiting:
            yield from driver.look()
            if driver.waiting:
                time.sleep(_LOOK_S)
    finally:
        driver.close()


def deal(specs: list[Spec], tasks: int | None) -> list[list[Spec]]:
    """Slices of the plan, equally long, in its order: a task's runs stay together."""
    if not specs:
        return []
    n = min(tasks or min(math.ceil(len(specs) / RUNS_A_TASK), MOST_TASKS), len(specs))
    return [specs[len(specs) * index // n : len(specs) * (index + 1) // n] for index in range(n)]


@dataclass
class _Driver:
    """What is known of the jobs: by the name of their array and the index of their slice."""

    specs: list[Spec]
    options: Options
    settings: Settings

    def __post_init__(self) -> None:
        self.waiting = {spec.id: spec for spec in self.specs}
        self.arrays: list[Array] = []
        self.open = set[tuple[str, int]]()
        """Slices that are not known to have ended."""
        self.attempts = Counter[str]()
        """How often a run was under way when its job ended."""
        self.fruitful = set[tuple[str, int]]()
        self.fruitless = Counter[tuple[str, int]]()
        """How many jobs in a row ended with nothing finished."""
        self.again: list[tuple[list[Spec], int]] = []
        """Slices to be submitted anew, and how fruitless they were."""
        self.told = set[str]()
        """Ids of the outcomes that were read, others' among them."""
        self.failed = set[str]()
        self.pause, self.asked = _ASK_S[0], time.monotonic()

    def attach(self) -> None:
        """Take over what a killed driver left running."""
        arrays = find_arrays(self.options.results)
        known = states(arrays)
        for array in arrays:
            slices = [(array.name, index) for index in range(len(array.slices))]
            if known is not None and all(_over(known[each]) for each in slices):
                array.forget()
            elif any(spec_id in self.waiting for ids in array.slices for spec_id in ids):
                self.arrays.append(array)
                self.open.update(slices)

    def unsent(self) -> list[Spec]:
        sent = {spec_id for array in self.arrays for ids in array.slices for spec_id in ids}
        return [spec for spec in self.specs if spec.id not in sent]

    def submit(self, slices: list[list[Spec]]) -> None:
        if slices:
            self.pause = _ASK_S[0]
            array = Array.submit(slices, self.options, self.settings)
            self.arrays.append(array)
            self.open.update((array.name, index) for index in range(len(slices)))

    def look(self) -> list[Outcome]:
        """What has ended since the last call; what jobs left undone is submitted again."""
        news = [outcome for array in self.arrays for outcome in self._read(array)]
        now = time.monotonic()
        if self.waiting and now - self.asked >= self.pause:
            self.asked, self.pause = now, min(1.5 * self.pause, _ASK_S[1])
            known = states(self.arrays) or {}
            for array in self.arrays:
                for index in range(len(array.slices)):
                    key = array.name, index
                    if known.get(key) in NEVER:
                        raise PeftmarkError(
                            f"Slurm will not start these jobs ({known[key]}): ask for less, or elsewhere"
                        )
                    if key in self.open and _over(known.get(key, "")):
                        self.open.discard(key)
                        news += [*self._read(array), *self._bury(array, index, known[key])]
            self.submit([specs for specs, _ in self.again])
            for index, (_, fruitless) in enumerate(self.again):
                self.fruitless[self.arrays[-1].name, index] = fruitless
            self.again = []
        return news

    def _read(self, array: Array) -> Iterator[Outcome]:
        for index, journal in enumerate(array.journals):
            for line in journal.new():
                self.fruitful.add((array.name, index))
                self.told.add(line.id)
                if line.id in self.waiting:
                    yield line.outcome(self.waiting.pop(line.id))

    def _bury(self, array: Array, index: int, state: str) -> list[Outcome]:
        """Of a slice whose job ended: what it finished last, and what is given up. The rest is to be submitted again.

        Which run ended a job is not known. Those that were under way are tried again with the others, then each alone,
        and then given up; where memory was short, alone at once.
        """
        news = recorded(self._left(array, index), self.options, array.since)
        for outcome in news:
            del self.waiting[outcome.spec.id]
        left = self._left(array, index)
        if not left:
            return news
        self.failed.add(array.name)
        key, tries = (array.name, index), _TRIES_OOM if state == OOM else _TRIES
        fruitless = 0 if news or key in self.fruitful else self.fruitless[key] + 1
        # runs are started in their order
        under_way = left[: self.options.jobs] if array.journals[index].path.exists() else []
        self.attempts.update(spec.id for spec in under_way)
        hopeless = [spec for spec in under_way if self.attempts[spec.id] >= tries]
        for spec in left if fruitless >= _FRUITLESS else hopeless:
            news.append(self._give_up(spec, array, index, state))
        alone = [spec for spec in under_way if self.attempts[spec.id] == tries - 1 and spec.id in self.waiting]
        self.again += [([spec], 0) for spec in alone]
        if rest := [spec for spec in self._left(array, index) if spec not in alone]:
            self.again.append((rest, fruitless))
        return news

    def _left(self, array: Array, index: int) -> list[Spec]:
        return [self.waiting[spec_id] for spec_id in array.slices[index] if spec_id in self.waiting]

    def _give_up(self, spec: Spec, array: Array, index: int, state: str) -> Outcome:
        said = array.log(index)
        message = f"its job ended ({state}), again and again: {said or 'without a word'} (logs: {array.folder})"
        del self.waiting[spec.id]
        here = self.options if torch.cuda.is_available() else replace(self.options, device="cpu")
        error = ErrorInfo(phase="run", type="JobEnded", message=message)
        return record_failure(spec, here, "oom" if state == OOM else "error", error)

    def close(self) -> None:
        """Cancel what is under way for runs that are waited for; return when nothing is written any more."""
        if self.waiting:
            cancel(self.arrays)
        # a killed driver of another plan may have left jobs that have more to do
        done = {spec.id for spec in self.specs} | self.told
        ending = [array for array in self.arrays if self.waiting or all(map(done.issuperset, array.slices))]
        end = time.monotonic() + _CLOSE_S
        while ending and time.monotonic() < end:
            known = states(ending) or {}
            for array in list(ending):
                if all(_over(known.get((array.name, index), "")) for index in range(len(array.slices))):
                    array.close() if array.name in self.failed else array.forget()
                    ending.remove(array)
            if ending:
                time.sleep(_LOOK_S)


def _over(state: str) -> bool:
    return state in ENDED or state == GONE


def _on_the_cluster(options: Options, settings: Settings) -> tuple[Options, Settings]:
    """Paths that mean the same from everywhere; the workers and the device of a slice."""
    gpus = int(options.device.startswith("cuda")) if settings.gpus is None else settings.gpus
    there = replace(
        options,
        results=options.results.resolve(),
        places={name: path.resolve() for name, path in options.places.items()},
        checkpoints={name: path.resolve() for name, path in options.checkpoints.items()},
        jobs=options.jobs if gpus else settings.cpus or options.jobs,
        device="cuda" if gpus else "cpu",
        launcher={},
    )
    return there, msgspec.structs.replace(settings, gpus=gpus)
