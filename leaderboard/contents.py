"""What a results folder holds, as the board and exports of it show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import PeftmarkError
from ..results import CostRecord, RunRecord, Store
from ..results.published import load_published
from ..results.store import PREDICTIONS, files_below
from .accuracy.build import make_board
from .accuracy.published import Published, compare
from .accuracy.table import Board
from .costs.build import make_efficiency
from .costs.sheet import Efficiency
from .subjects import Subjects


@dataclass(frozen=True)
class Contents:
    """Records by their ids, what is made of them, and a line for every file that is none."""

    records: Sequence[RunRecord]
    costs: Sequence[CostRecord]
    problems: Sequence[str]
    subjects: Subjects
    efficiency: Efficiency
    board: Board
    published: Published
    predictions: dict[str, Path]
    """Files by run id."""


def read_contents(results: Path) -> Contents:
    """
    Raises:
        PeftmarkError: where there is no such folder, or there are no records in it.
    """
    if not results.is_dir():
        raise PeftmarkError(f"no results folder {results}: run `peftmark run` first, or name another with --results")
    store = Store(results)
    records, problems = store.load()
    costs, damaged_costs = store.load_costs()
    problems += damaged_costs
    if not records and not costs:
        damaged = f" ({len(problems)} damaged or foreign files: `peftmark validate` says why)" if problems else ""
        raise PeftmarkError(
            f"no records in {results}{damaged}: run `peftmark run` first, or name another with --results"
        )
    records.sort(key=lambda record: record.run_id)
    costs.sort(key=lambda cost: cost.cost_id)
    problems = [problem.replace(f"{results}/", "") for problem in problems]
    subjects = Subjects(results, records, costs)
    efficiency = make_efficiency(costs, subjects)
    board = make_board(records, subjects, efficiency)
    predictions = {path.stem: path for path in reversed([*files_below(results, PREDICTIONS, ".npz")])}
    return Contents(
        records, costs, problems, subjects, efficiency, board, compare(board, load_published()), predictions
    )
