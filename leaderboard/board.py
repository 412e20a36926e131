"""`build_board`: a folder of records to a folder of pages."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from .contents import read_contents
from .site.folder import check_replaceable, replacing
from .site.pages import Site, write_site


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
    contents = read_contents(results)
    check_replaceable(out, results)
    site = Site(
        contents.board,
        contents.efficiency,
        contents.subjects,
        contents.records,
        contents.costs,
        contents.problems,
        contents.published,
        built or datetime.now(UTC),
    )
    with replacing(out) as folder:
        write_site(site, folder)
    return out / "index.html"
