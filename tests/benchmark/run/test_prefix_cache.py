"""The cache of untouched prefixes: the same results with and without it, computed once, within its budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from peftmark import METHODS, TASKS, Anatomy, Method
from peftmark.benchmark.launch import local, worker
from peftmark.benchmark.launch.outcome import Options
from peftmark.benchmark.plan.runs import Request, plan
from peftmark.benchmark.run import inputs, prefix_cache
from peftmark.benchmark.run.prefix_cache import PrefixCache, memory_budget
from peftmark.benchmark.run.run import run
from peftmark.benchmark.support import native_methods
from peftmark.methods import AdaptedModel, Context, Phase
from peftmark.results import RunRecord, decode_record
from peftmark.tasks import Split, TaskData

Go = Callable[..., RunRecord]
ROOM = 2**28


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tasks(toy_plugin: Path) -> None:
    """The toy tasks and one of the open-vocabulary track, with another class at test time."""

    @TASKS.register("toy/named", track="openvocab", group="toys")
    class Named(TASKS["toy/bright"]):  # type: ignore[misc]
        """Dark or bright, by name; at test time also the other way round."""

        templates = ("a {} photo.",)

        def load(self) -> TaskData:
            data = super().load()
            test = data.tests["test"]
            new = Split(test.inputs[:5], 1 - test.targets[:5], ("bright", "dark"))
            return TaskData(data.train, data.validation, {"base": test, "new": new})


@pytest.fixture
def go(tasks: None, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """One short run; sixteen images in batches of 5, so the last one holds a single image."""

    def run_one(
        method: str,
        cache: PrefixCache | None,
        task: str = "toy/bright",
        config: dict[str, Any] | None = None,
        seed: int = 0,
        **protocol: Any,
    ) -> RunRecord:
        backbone = "embedded/clip" if task == "toy/named" else "embedded/vit"
        request = Request(
            methods=[method],
            tasks=[task],
            backbones=[f"{backbone}@{checkpoint}"],
            seeds=[seed],
            method_settings=config or {},
            protocol_settings={"epochs": 2, "batch_size": 5, "warmup_epochs": 0, **protocol},
        )
        made = plan(request)
        [spec] = made.specs
        record = run(spec, torch.device("cpu"), made.checkpoints.get(spec.backbone.weights), None, cache)
        assert record.error is None
        return record

    return run_one


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Where training and evaluation start, in order."""
    seen = []
    training, evaluation = inputs.Inputs.training, inputs.Inputs.evaluation

    def watched_training(self: Any, *arguments: Any) -> Any:
        found = training(self, *arguments)
        seen.append(("train", found[0]))
        return found

    def watched_evaluation(self: Any, name: str, precision: str) -> Any:
        found = evaluation(self, name, precision)
        seen.append((name, found[0]))
        return found

    monkeypatch.setattr(inputs.Inputs, "training", watched_training)
    monkeypatch.setattr(inputs.Inputs, "evaluation", watched_evaluation)
    return seen


NOAH = {"generations": 1, "population": 2, "parents": 1, "mutations": 1, "crossovers": 0, "supernet_epochs": 1.0}
SMALL: dict[str, dict[str, Any]] = {
    "noah": NOAH,
    "dylora": {"rank": 2},
    "diff_pruning": {"epochs": 1},
    "gated_vpt": {"prompt_length": 5},
    "st_adapter": {"layers": 1},
}
# where training starts: images 0, behind the stem 1, behind block i 2 + i, features 8
POINTS = {
    **dict.fromkeys(("full", "scratch", "bitfit", "layernorm", "ssf", "houlsby_adapter"), 0),  # a norm behind the stem
    **dict.fromkeys(("fish_mask", "magnitude_mask", "diff_pruning", "gps", "spt"), 0),  # patches and positions too
    **dict.fromkeys(("lora", "vpt_deep", "vpt_shallow", "adaptformer", "noah", "dylora", "attention_only"), 1),
    "partial": 6,
}


def image_methods() -> list[str]:
    return [name for name in native_methods() if "image" in METHODS.entry(name).metadata["tracks"]]


@pytest.mark.parametrize("method", image_methods())
def test_no_image_method_gives_other_bits(go: Go, starts: list[tuple[str, int]], tmp_path: Path, method: str) -> None:
    cache = PrefixCache(ROOM, tmp_path)
    with_cache = go(method, cache, config=SMALL.get(method))
    found = {start for name, start in starts if name == "train"}
    if method in POINTS:
        assert found == {POINTS[method]}
    starts.clear()
    without = go(method, None, config=SMALL.get(method))
    assert {start for _, start in starts} == {0}
    assert with_cache.quality is not None
    assert with_cache.quality == without.quality  # curve, validation, hash of the predictions
    assert (with_cache.run_id, with_cache.params, with_cache.found) == (without.run_id, without.params, without.found)


@pytest.mark.parametrize(
    ("method", "task", "train", "test"),
    [
        ("coop", "toy/named", 7, 9),  # a projection of one vector is another kernel's: its input is kept in training
        ("kgcoop", "toy/named", 7, 9),
        ("prograd", "toy/named", 7, 9),
        ("cocoop", "toy/named", 7, 9),
        ("promptsrc", "toy/named", 0, 0),  # prompts in front of the first block
        ("zero_shot", "toy/named", None, 9),
        ("clip_adapter", "toy/named", 7, 9),
        ("tip_adapter_f", "toy/named", 7, 9),
        ("clip_lora", "toy/named", 1, 1),
        ("lora", "toy/named", 1, 1),
        ("frame_mean", "toy/clips", 7, 8),
        ("linear", "toy/clips", 7, 8),
        ("partial", "toy/clips", 6, 6),
        ("st_adapter", "toy/clips", 6, 6),
        ("linear", "toy/bright", 7, 8),
    ],
)
def test_other_tracks(
    go: Go, starts: list[tuple[str, int]], tmp_path: Path, method: str, task: str, train: int | None, test: int
) -> None:
    cache = PrefixCache(ROOM, tmp_path)
    with_cache = go(method, cache, task, SMALL.get(method))
    assert [start for name, start in starts if name == "train"] == [] if train is None else [train]
    assert {start for name, start in starts if name != "train"} == {test}
    assert with_cache.quality == go(method, None, task, SMALL.get(method)).quality


def test_views_of_test_images_are_adapted_to_with_other_class_names(go: Go, tmp_path: Path) -> None:
    config = {"views": 3, "selected": 0.5}
    record = go("tpt", PrefixCache(ROOM, tmp_path), "toy/named", config)
    assert record.status == "ok", record.error
    assert record.quality is not None
    assert record.quality == go("tpt", None, "toy/named", config).quality
    assert set(record.quality.tests) == {"base", "new"}


def test_features_are_kept_where_batches_are_not_tiny(go: Go, starts: list[tuple[str, int]], tmp_path: Path) -> None:
    cached = go("linear", PrefixCache(ROOM, tmp_path), batch_size=4)
    assert starts == [("train", 8), ("validation", 8), ("test test", 8)]
    assert cached.quality == go("linear", None, batch_size=4).quality


def test_bfloat16_is_another_prefix(go: Go, tmp_path: Path) -> None:
    cache = PrefixCache(ROOM, tmp_path)
    half = go("partial", cache, precision="bfloat16")
    assert cache.computed == 3
    assert half.quality == go("partial", None, precision="bfloat16").quality
    go("partial", cache)
    assert cache.computed == 6


def test_methods_seeds_and_rates_share_it(go: Go, tmp_path: Path) -> None:
    cache = PrefixCache(ROOM, tmp_path)
    first = go("linear", cache, batch_size=4)
    assert cache.computed == 3  # features of three splits; the images themselves were not wanted
    go("linear", cache, batch_size=4, seed=1)
    go("linear", cache, batch_size=8, learning_rate=0.1)
    assert cache.computed == 3
    go("lora", cache)
    go("vpt_deep", cache)
    assert cache.computed == 6  # behind the stem
    go("full", cache)
    go("ssf", cache)
    go("scratch", cache)
    assert cache.computed == 9  # images, also for random weights
    go("linear", cache, "toy/bright_too", batch_size=4)
    assert cache.computed == 12
    assert go("linear", cache, batch_size=4).quality == first.quality


def test_random_weights_have_no_prefix(go: Go, starts: list[tuple[str, int]], tmp_path: Path) -> None:
    go("scratch", PrefixCache(ROOM, tmp_path))
    assert {start for _, start in starts} == {0}


def test_scoring_does_not_preprocess_again(go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PrefixCache(ROOM, tmp_path)
    go("head_mask", cache)
    made = cache.computed
    go("head_mask", cache, seed=1)
    assert cache.computed <= made + 3


@dataclass
class Thaw(Method):
    """Trains the last block, then freezes it and trains the head; finally starts over."""

    def adapt(self, anatomy: Anatomy) -> None:
        anatomy.train(lambda name, parameter: name.startswith("blocks.5."))

    def phases(self) -> list[Phase]:
        return [Phase("block"), Phase("head"), Phase("again")]

    def begin_phase(self, name: str, model: AdaptedModel, accuracy: Callable[[], float]) -> None:
        if name == "head":
            model.backbone.requires_grad_(False)
            accuracy()
        if name == "again":
            model.restart()


def test_what_a_phase_has_trained_is_not_taken_for_the_backbone(
    go: Go, starts: list[tuple[str, int]], tmp_path: Path
) -> None:
    METHODS.register("toy_thaw", family="toys", tracks=("image",))(Thaw)
    cached = go("toy_thaw", PrefixCache(ROOM, tmp_path), learning_rate=0.05)
    assert {start for _, start in starts} == {6}  # the frozen block is not what was loaded
    assert cached.quality == go("toy_thaw", None, learning_rate=0.05).quality


@dataclass
class Mirror(Method):
    """Averages the logits of an image and its mirror image."""

    def loss(self, model: AdaptedModel, images: Tensor, labels: Tensor, context: Context) -> Tensor:
        assert images.shape[1:] == (3, 40, 40)
        return F.cross_entropy(model(images) + model(images.flip(-1)), labels)


@dataclass
class MirrorKin(Mirror):
    """Says itself that it does not look."""

    looks_at_images = False  # type: ignore[misc]


def test_a_method_with_a_loss_of_its_own_gets_images(go: Go, starts: list[tuple[str, int]], tmp_path: Path) -> None:
    assert (Mirror.looks_at_images, MirrorKin.looks_at_images, Method.looks_at_images) == (True, False, False)
    METHODS.register("toy_mirror", family="toys", tracks=("image",))(Mirror)
    cached = go("toy_mirror", PrefixCache(ROOM, tmp_path))
    assert starts == [("train", 0), ("validation", 8), ("test test", 8)]
    assert cached.quality == go("toy_mirror", None).quality


@pytest.mark.parametrize("budget", [0, 7000, 16 * 3 * 40 * 40 * 4])
def test_what_exceeds_the_budget_is_mapped_or_not_kept(go: Go, tmp_path: Path, budget: int) -> None:
    """Features are mapped; images and what the stem gives are computed anew."""
    cache = PrefixCache(budget, tmp_path / "new")
    expected = {name: go(name, None, batch_size=4).quality for name in ("linear", "lora", "full")}
    for _ in range(2):
        for name, quality in expected.items():
            assert go(name, cache, batch_size=4).quality == quality
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())  # files have no name
    if budget == 0:
        assert cache.computed == 3
        assert all(cache.is_mapped(tensor) for tensor in cache._kept.values())
    held = sum(tensor.nbytes for tensor in cache._kept.values() if not cache.is_mapped(tensor))
    assert held <= budget


def batches(value: float, n: int = 4) -> Callable[[], Iterator[Tensor]]:
    return lambda: iter([torch.full((3, 2), float(value)), torch.full((n - 3, 2), value + 1.0)])


def test_the_least_recently_used_leaves_first(tmp_path: Path) -> None:
    cache = PrefixCache(2 * 32, tmp_path)  # two tensors of 4 x 2 numbers
    for key in "ab":
        made = cache.get(key, 4, batches(ord(key)), may_map=False)
        assert made is not None
        assert made.tolist() == [[ord(key)] * 2] * 3 + [[ord(key) + 1] * 2]
    assert cache.get("a", 4, batches(0), may_map=False) is not None
    cache.get("c", 4, batches(2), may_map=False)
    assert (list(cache._kept), cache.computed) == (["a", "c"], 3)
    assert cache.get("big", 40, batches(1, n=40), may_map=False) is None
    assert (list(cache._kept), cache.computed) == (["a", "c"], 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("budget", [8, 80])
def test_what_is_kept_can_be_trained_on(tmp_path: Path, dtype: torch.dtype, budget: int) -> None:
    """Mapped or in memory, and whoever asked for it."""
    cache = PrefixCache(budget, tmp_path)
    with torch.inference_mode():
        tensor = cache.get("x", 4, lambda: iter([torch.arange(8, dtype=dtype).view(4, 2)]), may_map=True)
    assert tensor is not None
    assert cache.is_mapped(tensor) == (budget == 8)
    assert (tensor.dtype, tensor.tolist()) == (dtype, [[0, 1], [2, 3], [4, 5], [6, 7]])
    weight = torch.ones(2, dtype=dtype, requires_grad=True)
    (tensor[torch.tensor([1, 3])] @ weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [8, 10]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 2 * 32 - 1

    cache = PrefixCache(8, tmp_path)
    monkeypatch.setattr(prefix_cache.shutil, "disk_usage", lambda folder: Usage)
    assert cache.get("x", 4, batches(1), may_map=True) is None
    Usage.free += 1
    assert cache.get("x", 4, batches(1), may_map=True) is not None
    Usage.free -= 1
    assert cache.get("y", 4, batches(1), may_map=True) is None
    assert list(cache._kept) == []  # what was mapped made room as far as it could


def test_the_budget_is_shared_by_the_workers() -> None:
    assert memory_budget(4) == memory_budget(1) // 4 > 2**20


@pytest.mark.parametrize(("flags", "cache"), [([], True), (["--no-cache"], False)])
def test_the_command_line_turns_it_off(
    invoke: Any, toy_plugin: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], cache: bool
) -> None:
    seen = []

    def launched(specs: Any, options: Any) -> Iterator[Any]:
        seen.append(options)
        yield from ()

    monkeypatch.setattr(local, "launch", launched)
    chosen = ["--method", "toy_full", "--backbone", "toy/pixels", "--task", "toy/bright", "--device", "cpu"]
    assert invoke("run", *chosen, *flags).code == 0
    assert [options.cache for options in seen] == [cache]


def test_a_worker_without_it_writes_the_same(
    tasks: None, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of a worker share one cache; a spec says nothing of it, and only records are left in the results."""
    for name in ("_options", "_broken", "_cache"):
        monkeypatch.setattr(worker, name, None)
    monkeypatch.setattr(worker, "keep_freed_memory", lambda: None)  # it would hold for all tests that follow here
    request = Request(
        methods=["linear"], tasks=["toy/bright"], backbones=[f"embedded/vit@{checkpoint}"], seeds=[0, 1],
        protocol_settings={"epochs": 2, "batch_size": 4, "warmup_epochs": 0},
    )  # fmt: skip
    made = plan(request)
    found = []
    for cache in (True, False):
        results = tmp_path / str(cache)
        worker.start(Options(results, "cpu", 1, None, False, True, (), made.checkpoints, cache))
        assert [worker.work(spec).status for spec in made.specs] == ["ok", "ok"]
        assert (worker._cache.computed if worker._cache else None) == (3 if cache else None)
        records = [decode_record(path.read_bytes(), path) for path in sorted(results.glob("*.json"))]
        found.append([(record.spec, record.quality) for record in records])
        assert {path.name for path in results.iterdir() if path.suffix != ".json"} <= {"cards", "predictions"}
    assert found[0] == found[1]
    assert len(found[0]) == 2
