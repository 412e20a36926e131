"""Which conclusions change between the default configuration, one study and the median of the studies.

    python -m tools.tuning_conclusions results/records/embedded results/records/embedded-tuned

Prints, for every table that has tuned rows, the means and ranks by each of these, and what training on the validation
data alone gives: by how much final runs of a trial 0, the default, differ from the default's own runs.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

from peftmark.leaderboard.contents import read_contents
from peftmark.leaderboard.tuning.overview import Tuned, make_overview
from peftmark.results import RunRecord
from peftmark.results.tuning import tuning_of

Key = tuple[str, str, str]
"""Method, backbone, task."""


def table(tuned: Tuned) -> str:
    """A row a method: its mean and rank by default, by each study, and by the median of them."""
    if tuned.luck is None:
        return "fewer than two methods have all of it\n"
    orders = tuned.luck.rankings
    lines = [["method", *(order.name for order in orders)]]
    for label in sorted(orders[-1].ranks, key=lambda name: orders[-1].ranks[name]):
        cells = [
            f"{order.values[label]:.1f} ({order.ranks[label]})" if label in order.ranks else "–" for order in orders
        ]
        lines.append([label, *cells])
    lines.append(["pairs in another order", *(f"{order.changed[0]} of {order.changed[1]}" for order in orders)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def of_the_data(records: Iterable[RunRecord]) -> dict[Key, float]:
    """Test points that the default gains where it trains on validation data, too; where a study chose it."""
    plain: defaultdict[Key, list[float]] = defaultdict(list)
    final: defaultdict[Key, list[float]] = defaultdict(list)
    for run in records:
        if run.quality is None or run.spec.trial != 0:
            continue
        key = run.spec.method.name, run.spec.backbone.name, run.spec.task.name
        (plain if tuning_of(run.spec) is None else final)[key].append(run.quality.test)
    return {key: fmean(values) - fmean(plain[key]) for key, values in sorted(final.items()) if key in plain}


def main() -> None:
    folders = [Path(name) for name in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as together:
        for number, folder in enumerate(folders):
            shutil.copytree(folder, Path(together) / str(number))
        contents = read_contents(Path(together))
    for tuned in make_overview(contents.board, contents.subjects):
        sys.stdout.write(f"\n{tuned.backbone.name} {tuned.section}\n{table(tuned)}")
    gains = of_the_data(contents.records)
    for backbone in sorted({key[1] for key in gains}):
        values = [gain for key, gain in gains.items() if key[1] == backbone]
        sys.stdout.write(
            f"\n{backbone}: validation data alone {fmean(values):+.1f} points over {len(values)} defaults\n"
        )


if __name__ == "__main__":
    main()
