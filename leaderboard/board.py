"""`build_board`: a folder of records to a folder of pages."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ..errors import PeftmarkError
from ..results import Store
from ..results.published import load_published
from .accuracy.build import make_board
from .accuracy.published import compare
from .costs.build import make_efficiency
from .site.folder import check_replaceable, replacing
from .site.pages import Site, write_site
from .subjects import Subjects


def build_board(results: str | Path, out: str | Path, *, built: datetime | None = None) -> Path:
    """Write a static site about all records below `results` that opens from a file, without any network.

    An earlier board in `out` is replaced as a whole once the new one is complete.

    Args:
        results: a folder of records, with their cards.
        out: the site's folder; new, empty, or an earlier board.
        built: the time to print on the pages, now by default. All else depends on the records alone.

    Returns:
        The path of the front page.

    Raises:
        PeftmarkError: where there are no records, or `out` cannot or must not be replaced.
    """
    results, out = Path(results), Path(out)
    if not results.is_dir():
        raise PeftmarkError(f"no results folder {results}: run `peftmark run` first, or name another with --results")
    store = Store(results)
    records, problems = store.load()
    costs, damaged_costs = store.load_costs()
    problems += damaged_costs
    if not records and not costs:
        damaged = f" ({len(problems)} damaged or foreign files)" if problems else ""
        raise PeftmarkError(
            f"no records in {results}{damaged}: run `peftmark run` first, or name another with --results"
        )
    check_replaceable(out, results)
    records.sort(key=lambda record: record.run_id)
    costs.sort(key=lambda cost: cost.cost_id)
    problems = [problem.replace(f"{results}/", "") for problem in problems]
    subjects = Subjects(results, records, costs)
    efficiency = make_efficiency(costs, subjects)
    board = make_board(records, subjects, efficiency)
    published = compare(board, load_published())
    with replacing(out) as folder:
        built = built or datetime.now(UTC)
        write_site(Site(board, efficiency, subjects, records, costs, problems, published, built), folder)
    return out / "index.html"
