"""Mean ranks with bars over what is not told apart: Demšar's critical-difference diagram, drawn by scikit-posthocs."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ...results.statistics import Nemenyi
from .svg import COLOURS, inline, style


def critical_difference_chart(nemenyi: Nemenyi, labels: Mapping[str, str], colours: Mapping[str, str]) -> str:
    """The SVG element.

    Args:
        labels: what each method is called, by its name in the test.
        colours: the families whose colours they have.
    """
    from scikit_posthocs import critical_difference_diagram

    names = [labels[method] for method in nemenyi.methods]
    ranks = dict(zip(names, nemenyi.mean_ranks.tolist(), strict=True))
    p = pd.DataFrame(nemenyi.p, index=names, columns=names)
    palette = {labels[method]: COLOURS[f"family-{colours[method]}"] for method in nemenyi.methods}
    with style():
        drawing = Figure(figsize=(9.0, 1.0 + 0.19 * len(names)), layout="constrained")
        FigureCanvasSVG(drawing)
        axes = drawing.add_subplot()
        critical_difference_diagram(
            ranks,
            p,
            cd=nemenyi.critical_difference,
            ax=axes,
            color_palette=palette,
            label_props={"fontsize": 8.5},
            crossbar_props={"color": COLOURS["ink"], "linewidth": 2},
            elbow_props={"linewidth": 0.8},
            label_fmt_left="{label} ({rank:.1f})",
            label_fmt_right="({rank:.1f}) {label}",
        )
        for spine in axes.spines.values():
            spine.set_color(COLOURS["strong-rule"])
        axes.tick_params(which="both", colors=COLOURS["muted"])
        return inline(drawing)
