"""How a protocol's learning rates were set: validation accuracy by method family and rate.

    for rate in 5e-4 2e-3 8e-3; do
        peftmark run --suite embedded --task embedded/count --task embedded/textures --task embedded/base2new \\
            --seed 100 --set protocol.learning_rate=$rate --results runs/learning-rates
    done
    python -m tools.learning_rates runs/learning-rates

The test figures of these runs are not looked at, and seed 100 is no seed of the benchmark.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from peftmark.registry import METHODS
from peftmark.results import load_results

if TYPE_CHECKING:
    import pandas


def validation_by_rate(results: Path) -> pandas.DataFrame:
    """Mean validation accuracy (percent) over tasks: a row a method, with its family, a column a learning rate.

    Only tasks that a method has finished at every rate count, so that columns can be compared; a run that diverged
    counts as zero.
    """
    frame = load_results(results)
    frame = frame.assign(
        family=frame["spec.method.name"].map(lambda name: METHODS.entry(name).family),
        rate=frame["spec.protocol.overrides"].map(lambda overrides: overrides.get("learning_rate")),
        validation=frame["quality.validation"].fillna(0.0),
    )
    keys = ["family", "spec.method.name", "spec.task.name"]
    by_task = frame.pivot_table(index=keys, columns="rate", values="validation").dropna()
    return by_task.groupby(level=["family", "spec.method.name"]).mean()


def main() -> None:
    """Print the table and, for each family, the rate with the highest mean over its methods."""
    table = validation_by_rate(Path(sys.argv[1]))
    families = table.groupby(level="family").mean()
    sys.stdout.write(table.round(1).to_string() + "\n\n" + families.round(1).to_string() + "\n\n")
    for family, rate in families.idxmax(axis=1).items():
        sys.stdout.write(f"{family} = {rate:g}\n")


if __name__ == "__main__":
    main()
