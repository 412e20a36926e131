"""Few-shot, base to new, cross-dataset and domain generalization: what is drawn, what is tested, and whole runs."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import few_classes
import pytest
import torch
from layouts import NAMES, write_aircraft, write_imagenet, write_split_file, write_variants

import peftmark
from peftmark.errors import PeftmarkError
from peftmark.registry import TASKS
from peftmark.results import canonical_json
from peftmark.tasks import Task, TaskData, draw_of, make_task
from peftmark.tasks.images import ImageList
from peftmark.tasks.openvocab import sets
from peftmark.tasks.openvocab.benchmarks import OpenVocabulary
from peftmark.tasks.openvocab.draws import base_and_new, draw

SPLIT_FILES = {
    "caltech101": ("caltech-101", "101_ObjectCategories", "Caltech101"),
    "dtd": ("dtd", "images", "DescribableTextures"),
    "eurosat": ("eurosat", "2750", "EuroSAT"),
    "food101": ("food-101", "images", "Food101"),
    "oxford_flowers": ("oxford_flowers", "jpg", "OxfordFlowers"),
    "oxford_pets": ("oxford_pets", "images", "OxfordPets"),
    "stanford_cars": ("stanford_cars", "", "StanfordCars"),
    "sun397": ("sun397", "SUN397", "SUN397"),
    "ucf101": ("ucf101", "UCF-101-midframes", "UCF101"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All fifteen sets, with four classes or two."""
    root = tmp_path_factory.mktemp("data")
    for folder, images, file in SPLIT_FILES.values():
        write_split_file(root, folder, images, f"split_zhou_{file}.json", sizes=(2, 1, 1))
    write_aircraft(root)
    write_imagenet(root)
    write_variants(root)
    return root


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, data: Path) -> Path:
    monkeypatch.setenv("PEFTMARK_DATA", str(data))
    monkeypatch.setattr(OpenVocabulary, "preprocessing", "crop-bicubic-16")
    for table in (sets.SETS, sets.VARIANTS):
        for name, found in few_classes.shrunk(table).items():
            monkeypatch.setitem(table, name, found)
    return data


def images(per_class: list[int], prefix: str) -> ImageList:
    labels = tuple(label for label, count in enumerate(per_class) for _ in range(count))
    paths = tuple(f"{prefix}/{index}.jpg" for index in range(len(labels)))
    return ImageList(prefix, Path("/nowhere"), paths, labels, tuple(f"class {i}" for i in range(len(per_class))))


def test_a_draw_has_as_many_images_a_class_as_it_says() -> None:
    splits = {"train": images([20, 20, 3], "train"), "val": images([5, 2, 9], "val")}
    for shots, validation in [(1, (1, 1, 1)), (2, (2, 2, 2)), (4, (4, 2, 4)), (16, (4, 2, 4))]:
        train, held = draw(splits, shots, seed=0)
        assert Counter(train.labels) == {0: shots, 1: shots, 2: min(shots, 3)}
        assert Counter(held.labels) == dict(enumerate(validation))
        assert set(train.paths) <= set(splits["train"].paths)
        assert set(held.paths) <= set(splits["val"].paths)


def test_draws_depend_on_the_seed_alone_and_are_nested() -> None:
    splits = {"train": images([20, 20], "train"), "val": images([9, 9], "val")}
    drawn = {shots: set(draw(splits, shots, 3)[0].paths) for shots in (1, 2, 4, 8, 16)}
    assert drawn[1] < drawn[2] < drawn[4] < drawn[8] < drawn[16]
    assert set(draw(splits, 4, 0)[0].paths) != drawn[4]
    order = list(range(40))[::-1]
    shuffled = ImageList(
        "train",
        Path("/nowhere"),
        tuple(splits["train"].paths[i] for i in order),
        tuple(splits["train"].labels[i] for i in order),
        splits["train"].class_names,
    )
    assert set(draw({**splits, "train": shuffled}, 4, 3)[0].paths) == drawn[4]
    # on every machine, with every version of every library: the first by sha256("3/path")
    first = min(splits["train"].paths[:20], key=lambda path: hashlib.sha256(f"3/{path}".encode()).digest())
    assert first in drawn[1]


def test_without_a_validation_split_it_is_held_out_of_training() -> None:
    splits = {"train": images([30, 5, 2, 1], "train"), "test": images([1, 1, 1, 1], "test")}
    held_before: set[str] = set()
    for shots in (1, 4, 16):
        train, held = draw(splits, shots, 0)
        assert not set(train.paths) & set(held.paths)
        assert Counter(train.labels) == {0: shots, 1: 1, 2: 1, 3: 1}
        assert Counter(held.labels) == {0: min(shots, 4), 1: min(shots, 4), 2: 1}
        assert held_before <= set(held.paths)
        assert not set(train.paths) & set(draw(splits, 16, 0)[1].paths)
        held_before = set(held.paths)


def test_base_classes_are_the_first_half_rounded_up() -> None:
    base, new = base_and_new(images([1, 2, 1, 2, 1], "test"))
    assert (base.class_names, base.labels) == (("class 0", "class 1", "class 2"), (0, 1, 1, 2))
    assert (new.class_names, new.labels) == (("class 3", "class 4"), (0, 0, 1))
    assert base.paths + new.paths == images([1, 2, 1, 2, 1], "test").paths


def load(name: str, draw: int = 0) -> tuple[Task, TaskData]:
    task = make_task(name, draw)
    return task, task.load()


def test_few_shot(few: Path) -> None:
    task, data = load("fewshot/eurosat-1shot")
    assert (task.track, task.group, task.objective(data).metric().name) == ("openvocab", "few-shot", "accuracy")
    assert task.templates == ("a centered satellite photo of {}.",)
    assert data.train.inputs.shape == (4, 3, 16, 16)
    assert data.train.targets.tolist() == data.validation.targets.tolist() == [0, 1, 2, 3]
    assert data.train.class_names == ("land_use 0", "land_use 1", "land_use 2", "land_use 3")
    assert list(data.tests) == ["test"]
    # the picture says its class by its brightness
    assert data.train.inputs.float().mean((1, 2, 3)).diff().gt(10).all()


def test_base_to_new_is_drawn_before_the_split_and_shares_the_test(few: Path) -> None:
    task, data = load("base2new/imagenet")
    whole, shots = load("fewshot/imagenet-16shot")[1], make_task("fewshot/imagenet-16shot")
    assert data.train.class_names == tuple(NAMES[:2])
    assert set(data.train.targets.tolist()) == set(data.validation.targets.tolist()) == {0, 1}
    assert torch.equal(data.train.inputs, whole.train.inputs[whole.train.targets < 2])
    assert data.tests["new"].class_names == tuple(NAMES[2:4])
    assert data.tests["new"].targets.tolist() == [0, 0, 1, 1]
    assert torch.equal(data.tests["base"].inputs, whole.tests["test"].inputs[:4])
    assert torch.equal(data.tests["new"].inputs, whole.tests["test"].inputs[4:])
    assert task.headline({"base": 60.0, "new": 30.0}) == pytest.approx(40.0)
    assert task.metric == "harmonic_mean"
    assert shots.split_sha256() != task.split_sha256()


def test_cross_dataset_and_domain_generalization(few: Path) -> None:
    _, one = load("cross_dataset/fgvc_aircraft")
    assert list(one.tests) == ["fgvc_aircraft"]
    assert one.tests["fgvc_aircraft"].class_names == ("707-320", "Eurofighter Typhoon")
    assert one.train.class_names == tuple(NAMES[:4])
    task, every = load("cross_dataset/all")
    assert set(every.tests) == {*SPLIT_FILES, "fgvc_aircraft", "source"}
    assert torch.equal(every.train.inputs, one.train.inputs)
    task, domains = load("domain_generalization/all")
    assert set(domains.tests) == {"imagenet_v2", "imagenet_sketch", "imagenet_a", "imagenet_r", "source"}
    assert domains.tests["imagenet_a"].class_names == (NAMES[1], NAMES[3])
    assert task.headline({"source": 100.0, "imagenet_v2": 10.0, "imagenet_a": 30.0}) == 20.0
    assert task.metric == "target_mean"


def test_the_seed_draws_and_the_manifest_says_what(few: Path) -> None:
    name = "fewshot/eurosat-1shot"
    assert [draw_of(name, seed) for seed in (0, 5)] == [0, 5]
    assert draw_of("embedded/digits", 5) == 0
    tasks = [make_task(name, draw) for draw in (0, 0, 1, 2, 3)]
    hashes = [task.split_sha256() for task in tasks]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 4
    manifest = tasks[0].manifest()
    assert manifest is not None
    assert hashlib.sha256(canonical_json(manifest)).hexdigest() == hashes[0]
    assert [label for _, label in manifest["train"]] == [0, 1, 2, 3]
    assert all((few / "eurosat" / path).is_file() for path, _ in manifest["train"])


def test_names_of_tasks() -> None:
    assert len(TASKS.expand("fewshot/*")) == 55
    assert len(TASKS.expand("base2new/*")) == 11
    assert len(TASKS.expand("cross_dataset/*")) == 11
    assert len(TASKS.expand("domain_generalization/*")) == 5
    for name, near in [("fewshot/euro-1shot", "fewshot/eurosat-1shot"), ("base2new/dt", "base2new/dtd")]:
        with pytest.raises(PeftmarkError, match=f"unknown task '{name}': did you mean .*{near}"):
            make_task(name)
    sizes = make_task("base2new/dtd").expected_sizes()
    assert sizes == (24 * 16, 24 * 4, 1692)


def test_every_reader_reaches_a_record_by_the_command_line(
    data: Path, tmp_path: Path, command: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFTMARK_DATA", str(data))
    tasks = [f"fewshot/{name}-1shot" for name in (*SPLIT_FILES, "fgvc_aircraft", "imagenet")]
    tasks += ["base2new/eurosat", "cross_dataset/all", "domain_generalization/all"]
    arguments = [argument for task in tasks for argument in ("--task", task)]
    done = command(
        "run", *arguments, "--method", "zero_shot", "--backbone", "embedded/clip", "--seed", 0, "--seed", 1,
        "--jobs", 1, "--import", few_classes.__file__,
    )  # fmt: skip
    assert done.code == 0, done.err
    frame = peftmark.load_results(tmp_path / "runs")
    assert sorted(set(frame["spec.task.name"])) == sorted(tasks)
    assert (frame["status"] == "ok").all()
    assert len(frame) == 2 * len(tasks)
    assert set(frame["spec.task.preprocessing"]) == {"crop-bicubic-16"}
    draws = frame[frame["spec.task.name"] == "base2new/eurosat"]["spec.task.split_sha256"]
    assert draws.nunique() == 2  # one a seed
    manifests = {path.stem: path for path in (tmp_path / "runs" / "cards" / "manifests").iterdir()}
    assert set(manifests) == set(frame["spec.task.split_sha256"])
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == name for name, path in manifests.items())


def test_mistakes_by_the_command_line(
    data: Path, tmp_path: Path, invoke: Callable[..., object], few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The readers' own are in test_openvocab_readers.py; here is how one arrives."""
    shutil.copytree(data / "eurosat", tmp_path / "data" / "eurosat")
    monkeypatch.setenv("PEFTMARK_DATA", str(tmp_path / "data"))
    arguments = ("run", "--task", "fewshot/eurosat-1shot", "--method", "zero_shot", "--backbone", "embedded/clip")
    broken = json.loads((tmp_path / "data/eurosat/split_zhou_EuroSAT.json").read_text())["test"][0][0]
    (tmp_path / "data/eurosat/2750" / broken).write_bytes(b"\xff\xd8\xff no picture")
    done = invoke(*arguments)
    assert done.code == 2
    assert f"2750/{broken}" in done.err and "cannot be read" in done.err and "Traceback" not in done.err
    (tmp_path / "data/eurosat/2750" / broken).unlink()
    sets._read.cache_clear()
    done = invoke(*arguments)
    assert done.code == 2
    assert done.one_line().startswith("peftmark: task fewshot/eurosat-1shot: ")
    assert "1 image" in done.one_line() and "missing" in done.one_line()
