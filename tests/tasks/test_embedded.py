"""The generated tasks: their shapes, their splits, and that a label says what the image shows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from peftmark.backbones.embedded.atlas import HELD_OUT_STYLE, STYLES, load_atlas
from peftmark.registry import TASKS
from peftmark.tasks import Split, Task, TaskData
from peftmark.tasks.embedded.generated import GeneratedTask
from peftmark.tasks.embedded.sprites import family

NAMES = TASKS.names("embedded/*")
WITH_SCENES = ("embedded/count", "embedded/location", "embedded/orientation", "embedded/emoji_groups")
SPLITS = ("train", "validation", "test")
HELD_OUT = load_atlas().style(HELD_OUT_STYLE)


@pytest.fixture(scope="module")
def data() -> dict[str, TaskData]:
    return {name: make(name).load() for name in NAMES}


def make(name: str, **attributes: object) -> GeneratedTask:
    """A task, or one like it with other figures."""
    cls = TASKS[name]
    task = (type(cls.__name__, (cls,), attributes) if attributes else cls)(name)
    assert isinstance(task, GeneratedTask)
    return task


def splits_of(data: TaskData) -> dict[str, Split]:
    return {"train": data.train, "validation": data.validation, **data.tests}


def test_all_tracks_and_groups_are_there() -> None:
    found = {(TASKS.entry(name).metadata["track"], TASKS.entry(name).metadata["group"]) for name in NAMES}
    assert found == {
        ("image", "natural"),
        ("image", "specialized"),
        ("image", "structured"),
        ("openvocab", "base-to-new"),
        ("openvocab", "cross-dataset"),
        ("openvocab", "domain generalization"),
        ("openvocab", "domain shift"),
        ("openvocab", "few-shot"),
        ("video", "temporal"),
        ("video", "appearance"),
    }


@pytest.mark.parametrize("name", NAMES)
def test_splits_have_the_promised_form(name: str, data: dict[str, TaskData]) -> None:
    task = make(name)
    splits = splits_of(data[name])
    assert {split: len(made) for split, made in splits.items()} == dict(task.sizes)
    for made in splits.values():
        side = 8 if name == "embedded/digits" else 40
        frames = () if task.num_frames is None else (task.num_frames,)
        assert made.inputs.dtype == torch.uint8
        assert made.inputs.shape == (len(made), *frames, 3, side, side)
        assert made.targets.dtype == torch.int64
        counts = torch.bincount(made.targets, minlength=len(made.class_names))
        assert len(counts) == len(made.class_names) == len(set(made.class_names))
        assert counts.min() > 0 and counts.max() - counts.min() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_data_come_from_the_seed_alone(name: str, data: dict[str, TaskData]) -> None:
    torch.manual_seed(len(name))
    np.random.seed(len(name))
    assert make(name).load().sha256() == data[name].sha256()
    assert make(name, seed=1000).load().sha256() != data[name].sha256()


@pytest.mark.parametrize("name", NAMES)
def test_data_do_not_depend_on_the_number_of_threads(name: str) -> None:
    sizes = {split: min(size, 80) for split, size in TASKS[name].sizes.items()}
    before, found = torch.get_num_threads(), set()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.add(make(name, sizes=sizes).load().sha256())
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1


@pytest.mark.parametrize("name", NAMES)
def test_loading_leaves_the_global_generators_alone(name: str) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    make(name).load()
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


@pytest.mark.parametrize("name", NAMES)
def test_no_image_is_in_two_splits(name: str, data: dict[str, TaskData]) -> None:
    seen = [image.numpy().tobytes() for made in splits_of(data[name]).values() for image in made.inputs]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("name", NAMES)
def test_split_hash_is_stable_and_follows_what_decides_the_data(name: str) -> None:
    hashes = [
        make(name).split_sha256(),
        make(name, version=TASKS[name].version + 1).split_sha256(),
        make(name, seed=1000).split_sha256(),
        make(name, sizes=TASKS[name].sizes | {"train": 80}).split_sha256(),
    ]
    assert make(name).split_sha256() == hashes[0]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize("name", NAMES)
def test_the_board_can_say_what_a_task_is(name: str) -> None:
    doc = TASKS.entry(name).doc
    assert "chance" in doc and f"seed {TASKS[name].seed}" in doc
    for size in set(TASKS[name].sizes.values()):
        assert str(size) in doc


def test_digits_are_different_scans_of_scikit_learn() -> None:
    indices = make("embedded/digits").indices
    rows = np.concatenate(list(indices.values()))
    assert len(set(rows.tolist())) == len(rows)


def test_digits_are_read_as_scikit_learn_reads_them() -> None:
    scans, digits = make("embedded/digits")._scans
    expected = load_digits()
    assert np.array_equal(scans, np.round(expected.images * (255 / 16)).astype(np.uint8))
    assert np.array_equal(digits, expected.target) and digits.dtype == np.int64


@pytest.mark.parametrize("name", ["embedded/emoji_groups", "embedded/orientation"])
def test_no_emoji_and_no_family_is_in_two_splits(name: str) -> None:
    shown = {split: set(make(name).scenes(split).emoji.flatten().tolist()) for split in SPLITS}
    families = {split: {family(load_atlas().hexcodes[row]) for row in rows} for split, rows in shown.items()}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert shown[one].isdisjoint(shown[other])
        assert families[one].isdisjoint(families[other])


def test_families_are_gender_variants() -> None:
    code = dict(zip(load_atlas().names, load_atlas().hexcodes, strict=True))
    assert family(code["firefighter"]) == family(code["man firefighter"]) == family(code["woman firefighter"])
    assert family(code["person bowing"]) == family(code["man bowing"])
    assert family(code["firefighter"]) != family(code["student"])


@pytest.mark.parametrize("name", WITH_SCENES)
def test_every_sprite_is_a_drawing_of_the_right_style(name: str) -> None:
    for split in SPLITS:
        scenes = make(name).scenes(split)
        assert load_atlas().present[scenes.style.numpy(), scenes.emoji.numpy()].all()
        assert ((scenes.style == HELD_OUT) == (name == "embedded/emoji_groups")).all()


def test_emoji_groups_are_the_atlas_groups() -> None:
    task = make("embedded/emoji_groups")
    scenes = task.scenes("test")
    groups = [load_atlas().groups[row] for row in scenes.emoji[:, 0].tolist()]
    assert groups == [task.groups[label] for label in scenes.labels.tolist()]


def test_count_is_the_number_of_sprites_and_not_their_area() -> None:
    task = make("embedded/count")
    for split in SPLITS:
        scenes = task.scenes(split)
        assert torch.equal((scenes.size > 0).sum(1), scenes.labels + 1)
        placed = scenes.size[..., None] > 0
        inside = (scenes.centre - scenes.size[..., None] / 2 >= 0) & (scenes.centre + scenes.size[..., None] / 2 <= 40)
        assert (inside | ~placed).all()
    area = task.scenes("test").size.square().sum(1)
    means = torch.stack([area[task.scenes("test").labels == label].mean() for label in range(task.most)])
    assert means.max() / means.min() < 1.1


def test_location_is_the_cell_of_the_face() -> None:
    task = make("embedded/location")
    for split in SPLITS:
        scenes = task.scenes(split)
        column, row = (scenes.centre[:, 0] / (40 / task.cells)).long().unbind(1)
        assert torch.equal(row * task.cells + column, scenes.labels)
        kinds = np.array(load_atlas().groups)[scenes.emoji.numpy()] == "smileys-emotion"
        assert kinds[:, 0].all() and not kinds[:, 1:].any()


def test_orientation_is_the_nearest_step() -> None:
    task = make("embedded/orientation")
    scenes = task.scenes("test")
    steps = (scenes.angle[:, 0] / (2 * math.pi / task.steps)).round().long() % task.steps
    assert torch.equal(steps, scenes.labels)


def test_new_classes_are_new_and_base_classes_are_not() -> None:
    atlas, task = load_atlas(), make("embedded/base2new")
    base, new = task.emoji("base"), task.emoji("new")
    assert not atlas.held_out[base.numpy()].any()
    assert atlas.held_out[new.numpy()].all()
    assert torch.equal(task.emoji("train"), base) and torch.equal(task.emoji("validation"), base)
    for split in task.sizes:
        assert task.styles_of(split) == (HELD_OUT_STYLE,)


def test_base_to_new_is_a_harmonic_mean(data: dict[str, TaskData]) -> None:
    task = make("embedded/base2new")
    assert task.headline({"base": 60.0, "new": 30.0}) == pytest.approx(40)
    assert task.headline({"base": 0.0, "new": 0.0}) == 0
    tests = data["embedded/base2new"].tests
    assert tests["base"].class_names == data["embedded/base2new"].train.class_names
    assert set(tests["base"].class_names).isdisjoint(tests["new"].class_names)


def test_only_the_target_is_in_the_held_out_style(data: dict[str, TaskData]) -> None:
    task = make("embedded/style_shift")
    for split in task.sizes:
        assert (HELD_OUT_STYLE in task.styles_of(split)) == (split == "target")
        assert splits_of(data["embedded/style_shift"])[split].class_names == tuple(
            load_atlas().names[row] for row in task.emoji(split).tolist()
        )
    assert task.styles_of("target") == (HELD_OUT_STYLE,)
    assert task.headline({"source": 80.0, "target": 30.0}) == 30


def test_fewer_shots_are_among_more(data: dict[str, TaskData]) -> None:
    """And every class has as many images as the name says."""
    most = data["embedded/naming-16shot"]
    for shots in (1, 2, 4, 8, 16):
        fewer = data[f"embedded/naming-{shots}shot"]
        assert torch.equal(fewer.train.inputs, most.train.inputs[: 30 * shots])
        assert torch.equal(fewer.train.targets.bincount(), torch.full((30,), shots))
        assert torch.equal(fewer.validation.targets.bincount(), torch.full((30,), min(shots, 4)))
        assert torch.equal(fewer.tests["test"].inputs, most.tests["test"].inputs)
        assert fewer.train.class_names == most.train.class_names
    images = {image.numpy().tobytes() for split in splits_of(most).values() for image in split.inputs}
    assert len(images) == 480 + 120 + 300


def test_domains_are_styles_of_the_same_classes(data: dict[str, TaskData]) -> None:
    task = make("embedded/domain_generalization")
    assert task.styles_of("train") == task.styles_of("validation") == task.styles_of("source") == ("fluent",)
    targets = [name for name in task.sizes if name not in ("train", "validation", "source")]
    assert [task.styles_of(name) for name in targets] == [(name,) for name in targets]
    assert sorted([*targets, "fluent"]) == sorted(STYLES)
    assert len({split.class_names for split in splits_of(data[task.name]).values()}) == 1
    figures = {"source": 90.0, "noto": 40.0, "emojione": 50.0, "fxemoji": 60.0, "twemoji": 70.0}
    assert task.headline(figures) == 55


def test_cross_dataset_has_other_classes_in_every_test(data: dict[str, TaskData]) -> None:
    task, atlas = make("embedded/cross_dataset"), load_atlas()
    for name, split in splits_of(data[task.name]).items():
        group = name if name in task.classes else "animals-nature"
        assert {atlas.groups[row] for row in task.emoji(name).tolist()} == {group}
        assert len(split.class_names) == task.classes[group]
    assert data[task.name].tests["source"].class_names == data[task.name].train.class_names
    assert task.headline({"source": 0.0, "food-drink": 30.0, "travel-places": 60.0, "objects": 90.0}) == 60


def test_templates_take_a_name() -> None:
    for name in TASKS.names("embedded/*"):
        task: type[Task] = TASKS[name]
        open_vocabulary = TASKS.entry(name).metadata["track"] == "openvocab"
        assert bool(task.templates) == open_vocabulary
        assert all(template.count("{}") == 1 for template in task.templates)


def test_motion_classes_are_orders_of_the_same_frames() -> None:
    task = make("embedded/motion")
    clips = task.frames(3, task.generator("train"))
    for clip in clips:
        frames = sorted(frame.numpy().tobytes() for frame in clip)
        assert len(set(frames)) == task.num_frames
        for order in task.orders.values():
            assert sorted(frame.numpy().tobytes() for frame in clip[list(order)]) == frames
    assert len(set(task.orders.values())) == len(task.orders)


def test_motion_runs_from_left_to_right() -> None:
    task = make("embedded/motion")
    places = task.paths(500, task.generator("train"))
    step = places.diff(dim=1)
    assert (step[..., 0] > 0).all()
    assert (step[..., 1].abs() <= math.tan(task.slope) * step[..., 0] + 1e-4).all()
    assert (places >= 0).all() and (places <= 40).all()


def test_motion_clips_are_in_the_order_of_their_label(data: dict[str, TaskData]) -> None:
    task, train = make("embedded/motion"), data["embedded/motion"].train
    plain = make("embedded/motion", orders={f"as placed {i}": tuple(range(8)) for i in range(4)}).make("train")
    for clip, label, frames in zip(train.inputs, train.targets.tolist(), plain.inputs, strict=True):
        assert torch.equal(clip, frames[list(list(task.orders.values())[label])])


def test_motion_backwards_is_another_class() -> None:
    """What goes right goes left; so the label is in the order alone."""
    task = make("embedded/motion")
    clip = task.frames(1, task.generator("train"))[0]
    right, left = (clip[list(task.orders[name])] for name in ("rightward", "leftward"))
    assert torch.equal(right.flip(0), left)
    assert not torch.equal(right, left)


def test_glimpses_show_the_kind_that_the_label_says() -> None:
    task = make("embedded/glimpses")
    labels = torch.arange(60) % 6
    found = [load_atlas().groups[row] for row in task.emoji(labels, task.generator("train"))[:, 0].tolist()]
    groups = ("smileys-emotion", "animals-nature", "animals-nature", "food-drink", "travel-places", "objects")
    assert found == [groups[label] for label in labels.tolist()]


def test_glimpses_are_three_frames_of_eight_and_no_two_alike() -> None:
    task = make("embedded/glimpses", noise=0.0)
    for clip in task.make("train").inputs:
        frames = [frame.numpy().tobytes() for frame in clip]
        counts = sorted(frames.count(frame) for frame in set(frames))
        assert counts == [1, 1, 1, 5]


def test_glimpses_come_at_all_times() -> None:
    task = make("embedded/glimpses")
    seen = task.visible(4000, task.generator("train"))
    assert (seen.sum(1) == task.shown).all()
    assert (seen.float().mean(0) - 3 / 8).abs().max() < 0.03
