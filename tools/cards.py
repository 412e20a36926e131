"""Write the cards of methods and backbones in results folders anew, without a run: ``python -m tools.cards FOLDER …``.

What is not registered here (a plug-in's, or of a library that is not installed) keeps the card that it has.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from peftmark.benchmark.launch.cards import write_backbone_card, write_method_card
from peftmark.errors import PeftmarkError
from peftmark.results import read_cards
from peftmark.results.cards import Kind


def rewrite(root: Path) -> list[str]:
    """Returns a line for each card that stays as it is."""
    kept = []
    writers: dict[Kind, Callable[[Path, str], None]] = {
        "methods": write_method_card,
        "backbones": write_backbone_card,
    }
    for kind, write in writers.items():
        for name in read_cards(root, kind):
            try:
                write(root, name)
            except PeftmarkError as error:
                kept.append(f"{root}: {kind}: {error}")
    return kept


if __name__ == "__main__":
    sys.stderr.writelines(f"{line}\n" for folder in sys.argv[1:] for line in rewrite(Path(folder)))
