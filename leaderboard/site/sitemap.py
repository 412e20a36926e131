"""The pages that a site has one of: each is declared here, and named in the head of every page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ..accuracy.published import METRICS
from ..citations import cite_peftmark
from ..configurations import grouped
from ..costs.scaling import QUANTITIES
from ..drawings.expected import expected_chart
from ..drawings.scaling import scaling_chart
from ..subjects import FAMILIES, GROUPS, Subject, place

if TYPE_CHECKING:
    from .pages import Site


@dataclass(frozen=True)
class Page:
    address: str
    title: str
    """In the head of every page."""
    template: str
    """Empty where the page is one of several, which are written together."""
    shown: Callable[[Site], object]
    """Whether it has something to show."""
    values: Callable[[Site], Mapping[str, Any]] = lambda site: {}
    """What its template is given besides the site."""
    folder: str = ""
    """Of the pages that belong to it."""


def _always(site: Site) -> bool:
    return True


def _families(kind: str) -> Callable[[Site], Mapping[str, Any]]:
    """The subjects of a kind, by family."""
    return lambda site: {"families": _by_family(getattr(site.subjects, kind))}


def _by_family(subjects: Mapping[str, Subject]) -> dict[str, list[Subject]]:
    families: defaultdict[str, list[Subject]] = defaultdict(list)
    for subject in subjects.values():
        families[subject.family].append(subject)
    order = (*FAMILIES[:-2], *GROUPS, "open vocabulary", *FAMILIES[-2:])
    return dict(sorted(families.items(), key=lambda item: (place(item[0], order), item[0])))


def _scaling(site: Site) -> Mapping[str, Any]:
    return {
        "charts": {ladder.anchor: {q: Markup(scaling_chart(ladder, q)) for q in QUANTITIES} for ladder in site.ladders}
    }


def _calibration(site: Site) -> Mapping[str, Any]:
    """Tables with the calibration of their rows, the best calibrated first."""
    rows = grouped(site.examples.calibrations.values(), lambda each: each.table.key)
    tables = [
        (track, table, sorted(rows[table.key], key=lambda each: each.error))
        for track in site.board.tracks
        for table in track.tables
        if table.key in rows
    ]
    return {"tables": tables}


def _tuning(site: Site) -> Mapping[str, Any]:
    return {"charts": {tuned.key: Markup(expected_chart(tuned)) for tuned in site.tuned if tuned.comparable}}


LEFT_OUT = "left_out.html"
"""The page of files that could not be read, and of runs that stand in no table."""


def _tradeoffs(site: Site) -> Mapping[str, Any]:
    return {"charts": site.tradeoffs}


PAGES = (
    Page("tradeoffs.html", "Trade-offs", "tradeoffs.html.j2", lambda site: site.tradeoffs, _tradeoffs),
    Page("statistics.html", "Statistics", "statistics.html.j2", lambda site: site.board.rankings, folder="statistics"),
    Page("efficiency.html", "Efficiency", "efficiency.html.j2", lambda site: site.costs, folder="efficiency"),
    Page("scaling.html", "Scaling", "scaling.html.j2", lambda site: site.ladders, _scaling),
    Page("methods.html", "Methods", "methods.html.j2", _always, _families("methods"), "methods"),
    Page("tuning.html", "Tuning", "tuning.html.j2", lambda site: site.tuned, _tuning),
    Page("tasks.html", "Tasks", "tasks.html.j2", lambda site: site.records, _families("tasks"), "tasks"),
    Page("backbones.html", "Backbones", "backbones.html.j2", _always, _families("backbones"), "backbones"),
    Page("runs.html", "Runs", "", lambda site: site.records, folder="runs"),
    Page(LEFT_OUT, "Left out", "left_out.html.j2", lambda site: site.problems or site.board.left_out),
    Page("published.html", "Published", "published.html.j2", lambda site: site.records, lambda _: {"metrics": METRICS}),
    Page(
        "calibration.html", "Calibration", "calibration.html.j2", lambda site: site.examples.calibrations, _calibration
    ),
    Page("about.html", "About", "about.html.j2", _always, lambda _: {"citation": cite_peftmark()}),
)
"""All but the front page, which is the first track's."""
