"""NOAH: the search on its own, the supernet's weights shared, the three phases."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple
from random import Random

import pytest
import torch
from by_hand import adapted, anatomy, close
from hypothesis import given, settings
from hypothesis import strategies as st

from peftmark.adapting import adapt
from peftmark.errors import PeftmarkError, Unsupported
from peftmark.methods import make_method
from peftmark.methods.hybrid.noah import ElasticAdapter, ElasticDelta, ElasticPrompts, parameters, use
from peftmark.methods.parts.evolution import Architecture, Evolution, Space

SPACE = Space(blocks=6, widths=(1, 5, 10), depths=(0.25, 0.5, 0.75, 1.0))
seeds = st.integers(0, 2**31)


def well_formed(architecture: Architecture) -> bool:
    """The first 2, 3, 5 or 6 of six blocks have a kind of module, and the widths are of the space."""
    rows = astuple(architecture)
    depths = [len(row) - row.count(0) for row in rows]
    return all(
        len(row) == 6 and depth in (2, 3, 5, 6) and set(row[:depth]) <= {1, 5, 10} and not any(row[depth:])
        for row, depth in zip(rows, depths, strict=True)
    )


@given(seeds)
def test_what_is_drawn_mutated_and_crossed_is_of_the_space(seed: int) -> None:
    random = Random(seed)
    one, other = SPACE.draw(random), SPACE.draw(random)
    mutant, child = SPACE.mutate(one, 0.2, 0.4, random), SPACE.cross(one, other, random)
    assert all(map(well_formed, (one, other, mutant, child)))
    assert all(row in pair for row, *pair in zip(astuple(child), astuple(one), astuple(other), strict=True))
    assert SPACE.mutate(one, 0, 0, random) == one


def test_depths_and_widths_are_uniform() -> None:
    random = Random(0)
    drawn = [SPACE.draw(random) for _ in range(4000)]
    depths = Counter(6 - architecture.rank.count(0) for architecture in drawn)
    widths = Counter(architecture.prompts[0] for architecture in drawn)
    assert all(abs(depths[depth] / 4000 - 1 / 4) < 0.03 for depth in (2, 3, 5, 6))
    assert all(abs(widths[width] / 4000 - 1 / 3) < 0.03 for width in (1, 5, 10))


def test_a_mutation_keeps_what_it_does_not_draw_anew() -> None:
    """A shorter row loses its end, a longer one gains one; single widths change at their rate."""
    random, full = Random(1), Architecture((5,) * 6, (5,) * 6, (5,) * 6)
    kept = [SPACE.mutate(full, 0, 1, random).prompts for _ in range(200)]
    assert all(set(row) <= {5, 0} for row in kept)
    assert {row.count(0) for row in kept} == {0, 1, 3, 4}
    changed = [width for _ in range(500) for width in SPACE.mutate(full, 0.3, 0, random).rank]
    assert abs(sum(width != 5 for width in changed) / len(changed) - 0.3 * 2 / 3) < 0.03


def search(fitness: object = None, legal: object = None, **changes: int) -> tuple[list[Architecture], dict]:
    settings = {"generations": 8, "population": 20, "parents": 5, "mutations": 10, "crossovers": 6, **changes}
    evolution = Evolution(**settings, width_rate=0.2, depth_rate=0.4)
    asked: list[Architecture] = []

    def measure(architecture: Architecture) -> float:
        asked.append(architecture)
        return float(sum(map(sum, astuple(architecture)))) if fitness is None else fitness(architecture)

    return asked, evolution.search(SPACE, legal or (lambda architecture: True), measure, Random(0))


def test_the_search_measures_a_population_a_generation_each_architecture_once() -> None:
    asked, measured = search()
    assert len(asked) == len(set(asked)) == 8 * 20
    assert list(measured.values()) == sorted(measured.values(), reverse=True)
    assert set(measured) == set(asked)


def test_the_search_is_better_than_chance() -> None:
    """The best of 160 by evolution against the best of 160 drawn at random, where more is better."""
    _, measured = search()
    random = Random(0)
    by_chance = max(sum(map(sum, astuple(SPACE.draw(random)))) for _ in range(160))
    assert next(iter(measured.values())) > by_chance


def test_what_is_over_the_limit_is_never_measured() -> None:
    asked, _ = search(legal=lambda architecture: sum(architecture.rank) <= 12)
    assert asked and max(sum(architecture.rank) for architecture in asked) <= 12
    assert not search(legal=lambda architecture: False)[1]


def test_a_small_space_runs_out() -> None:
    tiny = Space(blocks=1, widths=(1, 2), depths=(1.0,))
    evolution = Evolution(3, 50, 5, 10, 10, 0.2, 0.4)
    assert len(evolution.search(tiny, lambda each: True, lambda each: 0.0, Random(0))) == 8


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_a_part_of_the_supernet_is_what_it_would_be_alone(seed: int) -> None:
    """The slices that an architecture uses, copied into a model that has nothing else."""
    architecture = SPACE.draw(Random(seed))
    supernet = adapted("noah")
    alone = adapt(anatomy(), "noah", num_classes=3, architecture=architecture).eval()
    assert alone.trainable_parameters(include_head=False) == parameters(alone.anatomy, architecture)
    with torch.no_grad():
        for name, parameter in supernet.backbone.named_parameters():
            if "slots" not in name.split("."):
                alone.backbone.get_parameter(name).copy_(parameter)
        alone.head.load_state_dict(supernet.head.state_dict())
        for one, other in zip(supernet.anatomy.blocks, alone.anatomy.blocks, strict=True):
            for kind in (ElasticPrompts, ElasticDelta, ElasticAdapter):
                large = [module for module in one.module.modules() if isinstance(module, kind)]
                small = [module for module in other.module.modules() if isinstance(module, kind)]
                for target in small:
                    for key, value in target.named_parameters():
                        source = large[0].get_parameter(key)
                        value.copy_(source[tuple(slice(size) for size in value.shape)])
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    use(supernet.anatomy, architecture)
    close(supernet(images), alone(images))


def test_each_step_of_the_supernet_draws_and_only_its_slices_train() -> None:
    model = adapt(anatomy(), "noah", num_classes=3, widths=(1, 8), depths=(0.5,))
    model.method.begin_phase("supernet", model, lambda: 0.0)
    images, labels = torch.randn(4, 3, 40, 40), torch.tensor([0, 1, 2, 0])
    used = set()
    for _ in range(8):
        model.zero_grad()
        model.method.loss(model, images, labels, None).backward()
        prompts = [module for module in model.modules() if isinstance(module, ElasticPrompts)]
        used.add(tuple(module.used for module in prompts))
        for module in prompts:
            gradient = module.prompts.grad
            rows = 0 if gradient is None else int(gradient.abs().sum(1).count_nonzero())
            assert rows == module.used
        assert all(module.used == 0 for module in prompts[3:])
    assert len(used) > 3


def test_phases_find_the_best_architecture_and_start_it_afresh() -> None:
    torch.manual_seed(0)
    method = make_method("noah", {"generations": 2, "population": 6, "limit": 30_000, "supernet_epochs": 2.0})
    assert [(p.name, p.epochs, p.learning_rate) for p in method.phases()] == [
        ("supernet", 2.0, 0.5),
        ("search", 0, 1.0),
        ("retrain", 1.0, 1.0),
    ]
    model = adapt(anatomy(), method, num_classes=3)
    backbone = {name: value.clone() for name, value in model.anatomy.named_parameters()}
    assert method.found() == {}
    head = model.head.weight.clone()
    seen: dict[Architecture, float] = {}

    def accuracy() -> float:
        rows = {kind: [] for kind in (ElasticPrompts, ElasticDelta, ElasticAdapter)}
        for module in model.modules():
            if type(module) in rows:
                rows[type(module)].append(module.used)
        architecture = Architecture(*map(tuple, rows.values()))
        assert parameters(model.anatomy, architecture) <= 30_000
        return seen.setdefault(architecture, float(len(seen) % 5))

    for phase in method.phases():
        method.begin_phase(phase.name, model, accuracy)
    best = max(seen, key=seen.get)
    assert method.found() == {"architecture": {key: list(row) for key, row in vars(best).items()}}
    assert model.trainable_parameters(include_head=False) == parameters(model.anatomy, best)
    assert not torch.equal(head, model.head.weight)
    assert all(torch.equal(value, backbone[name]) for name, value in model.anatomy.named_parameters())
    again = adapt(anatomy(), "noah", num_classes=3, **make_method("noah", method.found()).config())
    assert again.trainable_parameters() == model.trainable_parameters()
    assert [phase.name for phase in again.method.phases()] == ["train"]


def test_errors() -> None:
    with pytest.raises(PeftmarkError, match=r"depths=\[3, 6\] is not valid: Expected `float` <= 1.0"):
        make_method("noah", {"depths": [3, 6]})
    with pytest.raises(PeftmarkError, match=r"widths=\[0, 5\] is not valid: Expected `int` >= 1"):
        make_method("noah", {"widths": [0, 5]})
    with pytest.raises(Unsupported, match="has 6 blocks; the architecture must have a number for each"):
        adapt(anatomy(), "noah", num_classes=3, architecture=Architecture((1,), (1,), (1,)))
    model = adapt(anatomy(), "noah", num_classes=3, limit=10)
    with pytest.raises(Unsupported, match="at most limit=10 parameters"):
        model.method.begin_phase("search", model, lambda: 0.0)
