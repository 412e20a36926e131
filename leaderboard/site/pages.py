"""The pages of the board."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2

from ...results import CostRecord, Env, RunRecord, encode_record
from .. import formatting
from ..accuracy.examples import Examples, read_examples
from ..accuracy.measures import measures_of
from ..accuracy.published import Comparison, Published
from ..accuracy.standings import MIN_SHARED, OnTask, Standing, agreements, on_tasks
from ..accuracy.table import Board, Row, Table, Track
from ..accuracy.tradeoffs import Tradeoff, main_tradeoffs
from ..citations import cite
from ..configurations import grouped
from ..costs.scaling import MIN_SIZES, Ladder, by_ladder, make_ladders, size_word
from ..costs.sheet import PARTS, CostSheet, Efficiency, Overview
from ..drawings.block import described, draw, places_of
from ..drawings.line_plots import chosen_variant, loss_curves, mean_variants, variant_plot
from ..drawings.strip import strip
from ..drawings.tradeoffs import write_figure
from ..subjects import Subject, Subjects, families_in_order
from ..tuning.overview import Sensitivity, Tuned, make_overview
from .command import reproduce_row
from .data import write_data
from .libraries import write_libraries
from .overview import overview_data
from .run_records import write_run_records
from .run_table import ROWS, address, columns, run_pages, write_run_table
from .sitemap import PAGES, Page
from .statistics import write_ranking
from .tradeoffs import tradeoffs_data

_HERE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Site:
    """All that the pages show."""

    board: Board
    efficiency: Efficiency
    subjects: Subjects
    records: Sequence[RunRecord]
    costs: Sequence[CostRecord]
    problems: Sequence[str]
    published: Published
    built: datetime
    predictions: Mapping[str, Path] = field(default_factory=dict)
    """Files by run id."""

    @cached_property
    def version(self) -> str:
        try:
            return importlib.metadata.version("peftmark")
        except importlib.metadata.PackageNotFoundError:
            return "(not installed)"

    @cached_property
    def hardware(self) -> list[str]:
        """What anything was run or timed on; an estimate holds anywhere."""
        timed = {str(cost.spec.hardware_class) for cost in self.costs if cost.spec.hardware_class is not None}
        return sorted({record.env.hardware_class for record in self.records} | timed)

    @cached_property
    def software(self) -> list[str]:
        return sorted({f"torch {env.torch}, Python {env.python}" for env in self._environments})

    @cached_property
    def commits(self) -> list[str]:
        named = {(env.git_sha, env.dirty) for env in self._environments if env.git_sha}
        return sorted(f"{sha[:10]}{' with changes' if dirty else ''}" for sha, dirty in named if sha)

    @property
    def _environments(self) -> list[Env]:
        return [*(record.env for record in self.records), *(cost.env for cost in self.costs)]

    @cached_property
    def statuses(self) -> dict[str, int]:
        return dict(sorted(Counter(record.status for record in self.records).items()))

    @cached_property
    def cautions(self) -> list[str]:
        """What tasks want to be known before their figures are read."""
        stated = {task.facts.get("caution") for task in self.subjects.tasks.values()}
        return sorted(caution for caution in stated if isinstance(caution, str))

    def page_of(self, table: Table) -> str:
        """The address of a table."""
        pages = {track.key: track.page for track in self.board.tracks}
        return f"{pages[table.track]}#{table.key}"

    @cached_property
    def rows(self) -> Mapping[str, list[tuple[Table, Row]]]:
        """Where each method stands."""
        rows: defaultdict[str, list[tuple[Table, Row]]] = defaultdict(list)
        for track in self.board.tracks:
            for table in track.tables:
                for row in table.rows:
                    rows[row.method.name].append((table, row))
        return rows

    @cached_property
    def pages(self) -> list[Page]:
        """Those besides the front page that have something to show."""
        return [page for page in PAGES if page.shown(self)]

    @cached_property
    def on_tasks(self) -> dict[str, list[OnTask]]:
        """By task, the tables' rows on it."""
        return on_tasks(self.board)

    @cached_property
    def examples(self) -> Examples:
        """What stored predictions tell."""
        return read_examples(
            ((task, of_table) for task, tables in self.on_tasks.items() for of_table in tables), self.predictions
        )

    @cached_property
    def standings(self) -> Mapping[tuple[str, str], Standing]:
        """By the key of a row and a task."""
        return {
            (standing.row.key, task): standing
            for task, tables in self.on_tasks.items()
            for of_table in tables
            for standing in of_table.standings
        }

    @cached_property
    def tables_of(self) -> Mapping[str, list[tuple[Track, Table]]]:
        """By backbone."""
        tables = ((track, table) for track in self.board.tracks for table in track.tables)
        return grouped(tables, lambda pair: pair[1].backbone.name)

    @cached_property
    def comparisons(self) -> Mapping[str, list[Comparison]]:
        """Published figures beside measured ones, by method."""
        return grouped(self.published.comparisons, lambda comparison: comparison.row.method.name)

    @cached_property
    def sensitivities(self) -> Mapping[str, list[tuple[Tuned, Sensitivity]]]:
        """How much a method depends on its tuning, by method."""
        pairs = ((tuned, method) for tuned in self.tuned for method in tuned.methods if method.measured)
        return grouped(pairs, lambda pair: pair[1].method.name)

    @cached_property
    def tradeoffs(self) -> list[Tradeoff]:
        return [chart for track in self.board.tracks for table in track.tables for chart in main_tradeoffs(table)]

    @cached_property
    def tuned(self) -> list[Tuned]:
        return make_overview(self.board, self.subjects)

    @cached_property
    def ladders(self) -> list[Ladder]:
        return make_ladders(self.efficiency)

    @cached_property
    def sheets_by_ladder(self) -> Mapping[str, list[CostSheet]]:
        return by_ladder(self.efficiency)

    @cached_property
    def overview(self) -> Overview:
        return self.efficiency.overview([sheet for sheets in self.sheets_by_ladder.values() for sheet in sheets])

    @cached_property
    def left_out(self) -> Mapping[str, list[RunRecord]]:
        """By method, its runs that stand in no table."""
        return grouped(
            (run for run in self.records if run.run_id in self.board.left_out), lambda run: run.spec.method.name
        )

    @property
    def unranked(self) -> Mapping[str, list[RunRecord]]:
        """By reason, the runs that stand in no table, the commonest first."""
        left_out = self.board.left_out
        by_reason = grouped((run for run in self.records if run.run_id in left_out), lambda run: left_out[run.run_id])
        return dict(sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0])))


def write_site(site: Site, folder: Path) -> None:
    """Fill a folder with the pages, what they are drawn with, and the records behind them."""
    environment = _environment()

    def page(path: str, template: str, **values: Any) -> None:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        root = "../" * path.count("/")
        text = environment.get_template(template).render(site=site, root=root, path=path, **values)
        # a file's name may be no text
        target.write_text(text, encoding="utf-8", errors="backslashreplace")

    shutil.copytree(_HERE / "static", folder / "static", ignore=shutil.ignore_patterns("__pycache__"))
    write_libraries(folder / "static")
    for subject in site.subjects.tasks.values():
        _copy_picture(subject, folder)

    if site.records:
        for track in site.board.tracks:
            measures = {table.key: measures_of(table.rows) for table in track.tables}
            write_data(
                folder / "data" / f"{Path(track.page).stem}.js", overview_data(track, measures, site.board.rankings)
            )
            page(track.page, "track.html.j2", track=track, measures=measures)
        if not site.board.tracks:
            page("index.html", "start.html.j2")
    else:
        page("index.html", "efficiency.html.j2")
    if site.tradeoffs:
        write_data(folder / "data" / "tradeoffs.js", tradeoffs_data(site.board))
        (folder / "figures").mkdir()
        for chart in site.tradeoffs:  # PDF takes twice as long: `peftmark figures` has it
            write_figure(chart, "text", [folder / "figures" / f"{chart.key}.svg"])
    for each in filter(lambda each: each.template, site.pages):
        page(each.address, each.template, **each.values(site))
    for ranking in site.board.rankings:
        write_ranking(ranking, site.predictions, folder, page)
    for name, sheets in site.efficiency.by_backbone.items():
        backbone = site.subjects.backbones[name]
        page(
            f"efficiency/{backbone.slug}.html",
            "costs.html.j2",
            backbone=backbone,
            sheets=sheets,
            families=families_in_order(family for sheet in sheets for family in sheet.families),
        )
    for cost in site.costs:
        (folder / "costs").mkdir(exist_ok=True)
        (folder / "costs" / f"{cost.cost_id}.json").write_bytes(encode_record(cost))
    _write_subjects(site, page)
    _write_runs(site, folder, page)


def _write_subjects(site: Site, page: Callable[..., None]) -> None:
    """A page for every method, task and backbone."""
    for method in site.subjects.methods.values():
        places = places_of(method.facts)
        page(f"methods/{method.slug}.html", "method.html.j2", method=method, places=places, citation=cite(method))
    for task in site.subjects.tasks.values() if site.records else ():
        page(f"tasks/{task.slug}.html", "task.html.j2", task=task, tables=site.on_tasks.get(task.name, []))
    tables = [table for track in site.board.tracks for table in track.tables]
    for backbone in site.subjects.backbones.values():
        agreeing = agreements(tables, backbone.name)
        page(f"backbones/{backbone.slug}.html", "backbone.html.j2", backbone=backbone, agreements=agreeing)


def _write_runs(site: Site, folder: Path, page: Callable[..., None]) -> None:
    """The table of all runs, and the page that shows any one of them."""
    if not site.records:
        return
    left_out, searched = site.board.left_out, bool(site.board.searches)
    digits = write_run_records(site.records, site.board, site.subjects, folder)
    page("run.html", "run.html.j2", digits=digits)
    write_run_table(site.records, left_out, searched, folder / "data" / "runs.js")
    parts = [address(number) for number in range(1, 2 + (len(site.records) - 1) // ROWS)]
    for part in run_pages(site.records, left_out, searched, digits, ROWS):
        page(part.path, "runs.html.j2", part=part, parts=parts, columns=columns(searched))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: tuple[Callable[..., Any], ...] = (
        formatting.figure, formatting.spread, formatting.count, formatting.exact, formatting.share, formatting.duration,
        formatting.size, formatting.plain, formatting.marked, formatting.ratio, formatting.digits, formatting.giga,
        formatting.memory, formatting.signed,
    )  # fmt: skip
    environment.globals.update(
        chosen_variant=chosen_variant, mean_variants=mean_variants, variant_plot=variant_plot, size_word=size_word,
        PARTS=PARTS, MIN_SIZES=MIN_SIZES, MIN_SHARED=MIN_SHARED, loss_curves=loss_curves, strip=strip, draw=draw,
        described=described, reproduce_row=reproduce_row,
    )  # fmt: skip
    environment.filters.update({each.__name__: each for each in filters})
    return environment


def _copy_picture(subject: Subject, folder: Path) -> None:
    if subject.picture is not None:
        (folder / "pictures").mkdir(exist_ok=True)
        shutil.copyfile(subject.picture, folder / "pictures" / subject.picture_name)
