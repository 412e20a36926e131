"""The page of a ranking's statistics, and what its script switches between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...results.statistics import ROPE, Nemenyi, Withheld
from ..drawings.critical_difference import critical_difference_chart
from ..drawings.ranges import ranges_chart
from ..statistics.examples import against_first
from ..statistics.ranking import Ranking
from .data import write_data


def write_ranking(ranking: Ranking, files: Mapping[str, Path], folder: Path, page: Callable[..., None]) -> None:
    """``statistics/<key>.html`` and its data.

    Args:
        files: of predictions, by run id.
    """
    write_data(folder / "data" / "statistics" / f"{ranking.key}.js", _data(ranking))
    diagram = None
    if isinstance(ranking.nemenyi, Nemenyi):
        labels = {key: row.label for key, row in ranking.rows.items()}
        colours = {key: row.method.colour for key, row in ranking.rows.items()}
        diagram = Markup(critical_difference_chart(ranking.nemenyi, labels, colours))
    page(
        f"statistics/{ranking.key}.html",
        "ranking.html.j2",
        ranking=ranking,
        ranges=Markup(ranges_chart(ranking)),
        diagram=diagram,
        rope=ROPE,
        by_example=against_first(ranking, files),
    )


def _data(ranking: Ranking) -> dict[str, Any]:
    """Matrices in the order of the ranking."""
    keys = [row.key for row in ranking.in_order]
    places = [ranking.scores.methods.index(key) for key in keys]

    def ordered(matrix: Any, decimals: int = 3) -> list[list[float]]:
        values: list[list[float]] = matrix[places][:, places].round(decimals).tolist()
        return values

    data: dict[str, Any] = {
        "rows": [row.label for row in ranking.in_order],
        "wins": ordered(ranking.wins.wins),
        "ties": ordered(ranking.wins.ties),
    }
    if not isinstance(ranking.signed_ranks, Withheld):
        data |= {"better": ordered(ranking.signed_ranks.better), "equivalent": ordered(ranking.signed_ranks.equivalent)}
    against = [ranking.against(key) for key in keys]
    data["against"] = [
        None
        if isinstance(each, Withheld)
        else {keys.index(other.other): [other.difference, other.p, other.adjusted] for other in each.others}
        for each in against
    ]
    return data
