"""`build_board`: a folder of records to a folder of pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ..results.store import no_garbage_collection
from .contents import read_contents
from .site.folder import check_replaceable, replacing
from .site.pages import Site, write_site
from .site.sitemap import LEFT_OUT


def build_board(
    results: str | Path,
    out: str | Path,
    *,
    built: datetime | None = None,
    tell: Callable[[str], object] = lambda line: None,
) -> Path:
    """Write a static site about all records below `results` that opens from a file, without any network.

    An earlier board in `out` is replaced as a whole once the new one is complete.

    Args:
        results: a folder of records, with their cards.
        out: the site's folder; new, empty, or an earlier board.
        built: the time to print on the pages, now by default. All else depends on the records alone.
        tell: is called with a line for files that could not be read, and one for runs that stand in no table.

    Returns:
        The path of the front page.

    Raises:
        PeftmarkError: where there are no records, or `out` cannot or must not be replaced.
    """
    results, out = Path(results), Path(out)
    with no_garbage_collection():
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
            contents.predictions,
        )
        with replacing(out) as folder:
            write_site(site, folder)
    unread, unranked = len(contents.problems), len(contents.board.left_out)
    if unread:
        files, are = ("files", "are") if unread > 1 else ("file", "is")
        tell(f"{unread:,} {files} could not be read and {are} left out; why: {out / LEFT_OUT}")
    if unranked:
        runs, stand = ("runs", "stand") if unranked > 1 else ("run", "stands")
        tell(f"{unranked:,} {runs} {stand} in no table; why: {out / LEFT_OUT}")
    return out / "index.html"
