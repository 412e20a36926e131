"""Suite files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from peftmark import METHODS, SUITES, TASKS
from peftmark.benchmark.plan.runs import Request, plan
from peftmark.benchmark.plan.suite import find_suite, narrowed
from peftmark.benchmark.tuning.search import Found
from peftmark.errors import PeftmarkError
from peftmark.results import Store

HEAD = 'description = "Mine"\nprotocol = "embedded-v1"\n'

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> str:
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return str(path)

    return to_file


def block(methods: str, tasks: str = '["embedded/digits"]', more: str = "") -> str:
    return f'{HEAD}[[runs]]\nbackbone = "embedded/vit"\ntasks = {tasks}\nmethods = {methods}\n{more}'


@pytest.mark.parametrize("name", [name for name in SUITES if SUITES[name].runs])
def test_every_shipped_suite_names_what_there_is(name: str) -> None:
    suite = SUITES[name]
    assert suite.name == name
    assert suite.description
    pairs = suite.pairs()
    assert pairs
    for backbone, task, method, _ in pairs:
        assert backbone in ("embedded/vit", "embedded/clip") or "/" in backbone
        assert TASKS.canonical(task) == task
        assert METHODS.canonical(method) == method
        assert TASKS.entry(task).metadata["track"] in METHODS.entry(method).metadata["tracks"]
    keys = [(*pair[:3], str(pair[3])) for pair in pairs]
    assert len(set(keys)) == len(keys)


EMBEDDED = ("embedded", "embedded-full", "embedded-openvocab", "embedded-video")


def tasks_of(name: str) -> set[str]:
    return {task for _, task, _, _ in SUITES[name].pairs()}


def test_embedded_has_three_tracks_and_every_task_a_suite() -> None:
    assert {TASKS.entry(task).metadata["track"] for task in tasks_of("embedded")} == {
        "image",
        "openvocab",
        "video",
    }
    assert set().union(*map(tasks_of, EMBEDDED)) == set(TASKS.names("embedded/*"))


def test_embedded_full_runs_every_method() -> None:
    """On every image task, and one of open vocabulary; image methods on clips are at chance, and a few show it.

    The linear probe cannot name new classes: it has a task of its own.
    """
    pairs = {(task, method) for _, task, method, _ in SUITES["embedded-full"].pairs()}
    shipped = {m for m in METHODS.expand("*") if METHODS.entry(m).origin.startswith("peftmark.")}
    for task in tasks_of("embedded-full"):
        track = TASKS.entry(task).metadata["track"]
        found = {method for t, method in pairs if t == task}
        expected = {m for m in shipped if track in METHODS.entry(m).metadata["tracks"]}
        if track == "image":
            assert found == expected
        elif task == "embedded/base2new":
            assert found == expected - {"linear_probe"}
        else:
            assert found <= expected
    images = {name for name in TASKS.names("embedded/*") if TASKS.entry(name).metadata["track"] == "image"}
    assert images < tasks_of("embedded-full")
    assert {method for _, method in pairs} == shipped


@pytest.mark.parametrize("name", EMBEDDED)
def test_reference_records_are_what_the_suite_plans_today(name: str) -> None:
    """A change to the harness must not make records of the same thing look like records of another."""
    folder = Path(__file__).parents[3] / "results" / "records" / name
    recorded = {path.stem for path in folder.glob("*.json")}
    planned = {spec.id for spec in plan(Request(suite=name, seeds=[0, 1, 2])).specs}
    assert recorded
    assert recorded <= planned


def test_reference_records_of_the_tuned_suite_are_all_of_its_searches() -> None:
    """Trials, and final runs of what they choose today."""
    folder = Path(__file__).parents[3] / "results" / "records" / "embedded-tuned"
    recorded = {path.stem for path in folder.glob("*.json")}
    found = Found(Store(folder))
    planned = set()
    for search in plan(Request(suite="embedded-tuned")).searches:
        trials, to_run = search.state(found)
        assert to_run == []
        planned |= {trial.spec.run_id for trial in trials.values()} | {run.run_id for run in search.finals(trials)}
    assert recorded == planned


def test_a_file_by_its_path(write: Write) -> None:
    suite = find_suite(write(block('["linear", { name = "lora", rank = 4 }]')))
    assert (suite.name, suite.protocol, suite.seeds) == ("mine", "embedded-v1", (0,))
    assert suite.pairs() == [
        ("embedded/vit", "embedded/digits", "linear", {}),
        ("embedded/vit", "embedded/digits", "lora", {"rank": 4}),
    ]


def methods_of(file: str) -> list[str]:
    return [method for _, _, method, _ in find_suite(file).pairs()]


def test_wildcards_take_the_methods_of_the_tasks_track(write: Write) -> None:
    everything = methods_of(write(block('["*"]')))
    assert {"linear", "lora"} <= set(everything)
    assert {"coop", "zero_shot", "frame_mean"}.isdisjoint(everything)
    assert set(methods_of(write(block('["additive/*"]')))) == {
        m for m in METHODS.names("additive/*") if "image" in METHODS.entry(m).metadata["tracks"]
    }


@pytest.mark.parametrize("excluded", ["lora", "reparameterized/lora", "lor*"])
def test_exclude_leaves_out_what_wildcards_match(write: Write, excluded: str) -> None:
    methods = methods_of(write(block('["reparameterized/*", "linear"]', more=f'exclude = ["{excluded}"]')))
    assert "linear" in methods
    assert "lora" not in methods


def test_a_misspelt_exclude_is_not_passed_over(write: Write) -> None:
    with pytest.raises(PeftmarkError, match="unknown method 'lroa': did you mean lora"):
        methods_of(write(block('["*"]', more='exclude = ["lroa"]')))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs = [", "mine.toml is not a TOML file: "),
        ('protocol = "embedded-v1"\n', "mine.toml: Object missing required field `description`"),
        (HEAD, "mine.toml: a suite needs [[runs]] or [[profiles]]"),
        (block("[]").replace('protocol = "embedded-v1"', ""), "mine.toml: [[runs]] need a protocol"),
        (f"{HEAD}sedes = [1]\nruns = []\n", "mine.toml: Object contains unknown field `sedes`"),
        (f'{HEAD}seeds = ["a"]\nruns = []\n', "mine.toml: Expected `int`, got `str` - at `$.seeds[0]`"),
        (block('"linear"'), "mine.toml: Expected `array`, got `str` - at `$.runs[0].methods`"),
        (block("[1]"), "mine.toml: Expected `str | object`, got `int`"),
        (block("[]", more="extra = 1"), "mine.toml: Object contains unknown field `extra` - at `$.runs[0]`"),
        (f"{HEAD}seeds = [0, -1]\nruns = []\n", "mine.toml: Expected `int` >= 0 - at `$.seeds[1]`"),
        (f"{HEAD}seeds = [{2**63}]\nruns = []\n", "mine.toml: Expected `int`"),
        (f"{HEAD}seeds = [{'9' * 5000}]\n", "mine.toml is not a TOML file: Exceeds the limit (4300 digits)"),
        (f"{HEAD}seeds = {'[' * 100_000}", "mine.toml is not a TOML file: maximum recursion depth exceeded"),
    ],
)
def test_a_file_that_is_no_suite(write: Write, text: str, message: str) -> None:
    with pytest.raises(PeftmarkError) as error:
        find_suite(write(text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (block('["liner"]'), "unknown method 'liner': did you mean linear"),
        (block('["liner*"]'), "no method matches 'liner*'"),
        (block('["linear"]', '["embedded/digit"]'), "unknown task 'embedded/digit': did you mean embedded/digits"),
        (block('["linear"]', '["nowhere/*"]'), "no task matches 'nowhere/*'"),
        (block('[{ name = "liner" }]'), "unknown method 'liner'"),
        (block("[{ rank = 4 }]"), "a method table needs a name"),
    ],
)
def test_names_that_there_are_not(write: Write, text: str, message: str) -> None:
    with pytest.raises(PeftmarkError) as error:
        find_suite(write(text)).pairs()
    assert message in str(error.value)


def test_a_suite_that_there_is_not() -> None:
    with pytest.raises(PeftmarkError, match="unknown suite 'embeded': did you mean embedded"):
        find_suite("embeded")
    with pytest.raises(PeftmarkError, match=r"no suite file nowhere\.toml"):
        find_suite("nowhere.toml")


def test_methods_narrow_what_a_suite_lists_and_extend_it() -> None:
    """Those of other tracks are left out; what the suite configures stays configured."""
    listed = [("lora", {"rank": 4}), ("linear", {}), ("lora", {"rank": 2})]
    assert narrowed(listed, [], "image") == listed
    assert narrowed(listed, ["coop", "bitfit", "lora"], "image") == [listed[0], listed[2], ("bitfit", {})]
    assert narrowed(listed, ["coop"], "openvocab") == [("coop", {})]
    assert narrowed(listed, ["coop"], "image") == []
