"""Ladders and power laws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peftmark.leaderboard.costs.scaling import Ladder, fit, make_ladders, parse_name
from peftmark.leaderboard.drawings.scaling import scaling_chart

if TYPE_CHECKING:
    from ..conftest import Results

VITS = {"tiny": 5_000_000, "small": 20_000_000, "base": 80_000_000, "large": 300_000_000}


def ladder_of(results: Results) -> Ladder:
    [ladder] = make_ladders(results.efficiency())
    return ladder


def add_power_law(results: Results, method: str, exponent: float, words: tuple[str, ...] = tuple(VITS)) -> None:
    for word in words:
        size = VITS[word]
        cost = round(1e9 * (size / 5_000_000) ** exponent)
        results.cost(
            method,
            cost,
            backbone=f"timm/vit_{word}_patch16_224",
            size=size,
            params=0,
            flops=size * 400,
            train_flops=7 * cost**2,
        )


@pytest.mark.parametrize(
    ("name", "ladder", "size", "patch"),
    [
        ("timm/vit_tiny_patch16_224", "timm/vit", "tiny", 16),
        ("timm/vit_giant_patch14_224.clip_laion2b", "timm/vit", "giant", 14),
        ("timm/vit_base_patch14_reg4_dinov2.lvd142m", "timm/vit_reg4_dinov2", "base", 14),
        ("timm/vit_base_patch14_dinov2", "timm/vit_dinov2", "base", 14),
        ("timm/swin_large_patch4_window12_384", "timm/swin", "large", 4),
        ("timm/swinv2_tiny_window8_256", "timm/swinv2", "tiny", None),
        ("timm/convnext_tiny", "timm/convnext", "tiny", None),
        ("timm/convnextv2_nano.fcmae", "timm/convnextv2", "nano", None),
        ("timm/resnet50", "timm/resnet50", None, None),
        ("open_clip/ViT-B-16", "open_clip/ViT", "B", 16),
        ("open_clip/ViT-L-14-336", "open_clip/ViT", "L", 14),
        ("open_clip/ViT-bigG-14", "open_clip/ViT", "bigG", 14),
        ("open_clip/ViT-B-16-quickgelu", "open_clip/ViT_quickgelu", "B", 16),
        ("embedded/vit", "embedded/vit", None, None),
        ("vit_small_patch16_224", "vit", "small", 16),
        ("checkpoints/my-own.model", "checkpoints/my_own", None, None),
        ("x/", "x/", None, None),
    ],
)
def test_names_say_ladder_and_size(name: str, ladder: str, size: str | None, patch: int | None) -> None:
    parsed = parse_name(name)
    assert (parsed.ladder, parsed.size, parsed.patch) == (ladder, size, patch)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.37])
def test_the_exponent_of_a_power_law_is_found_exactly(exponent: float) -> None:
    found = fit([(size, 3.0 * size**exponent) for size in (5e6, 2e7, 8e7, 3e8)])
    assert found is not None
    assert found.exponent == pytest.approx(exponent, abs=1e-6)
    assert found.r2 == pytest.approx(1.0)
    assert found.deviation == pytest.approx(0.0, abs=1e-9)
    assert found.n == 4


def test_a_law_that_does_not_hold_has_its_distance() -> None:
    found = fit([(1.0, 1.0), (10.0, 20.0), (100.0, 100.0)])
    assert found is not None
    assert found.exponent == pytest.approx(1.0)
    assert found.r2 is not None and 0.9 < found.r2 < 1
    assert found.deviation == pytest.approx(2 ** (2 / 3) - 1)  # the middle lies a factor of two above the others


def test_no_fit_through_two_sizes() -> None:
    assert fit([(1.0, 1.0), (2.0, 2.0)]) is None
    assert fit([(1.0, 1.0), (1.0, 3.0), (2.0, 2.0)]) is None
    assert fit([]) is None
    constant = fit([(1.0, 5.0), (2.0, 5.0), (4.0, 5.0)])
    assert constant is not None and (constant.exponent, constant.r2) == (pytest.approx(0.0), None)


def test_a_ladder_from_records(results: Results) -> None:
    add_power_law(results, "linear", 0.5)
    add_power_law(results, "full", 0.75)
    add_power_law(results, "vpt", 0.5, ("tiny", "base"))
    add_power_law(results, "once", 0.5, ("tiny",))
    results.cost("vpt", status="oom", backbone="timm/vit_large_patch16_224")
    ladder = ladder_of(results)
    assert (ladder.name, [rung.size for rung in ladder.rungs]) == ("timm/vit", sorted(VITS.values()))
    configurations = {costs.label: costs for costs in ladder.configurations}
    assert set(configurations) == {"full", "linear", "vpt"}
    exponents = {q: found.exponent for q, found in configurations["full"].fits.items() if found}
    assert exponents == {
        "memory": pytest.approx(0.75, abs=1e-4),
        "train": pytest.approx(1.5, abs=1e-4),
        "forward": pytest.approx(1.0, abs=1e-4),
    }
    assert configurations["vpt"].sizes == 2
    assert set(configurations["vpt"].fits.values()) == {None}


def test_one_backbone_for_each_size(results: Results) -> None:
    add_power_law(results, "linear", 0.5)
    results.cost("linear", 10**9, backbone="timm/vit_base_patch32_224", size=88_000_000)
    results.cost("linear", 10**9, backbone="timm/vit_large_patch14_224", size=304_000_000)
    ladder = ladder_of(results)
    assert ladder.left_out == ["timm/vit_base_patch32_224", "timm/vit_large_patch14_224"]
    assert [rung.sheet.backbone.name for rung in ladder.rungs] == [f"timm/vit_{word}_patch16_224" for word in VITS]


def test_inputs_and_single_sizes_make_no_ladder(results: Results) -> None:
    results.cost("linear", 10**9, backbone="timm/vit_base_patch16_224")
    results.cost("linear", 10**9, backbone="timm/vit_large_patch16_224", batch_size=8)
    results.cost("linear", 10**9, backbone="timm/swin_large_patch4_window7_224")
    results.cost("linear", 10**9, backbone="embedded/vit")
    assert make_ladders(results.efficiency()) == []


def test_sizes_without_a_method_in_common_make_no_ladder(results: Results) -> None:
    add_power_law(results, "linear", 0.5, ("tiny",))
    add_power_law(results, "full", 0.5, ("base",))
    assert make_ladders(results.efficiency()) == []


def test_variants_do_not_enter_a_curve(results: Results) -> None:
    add_power_law(results, "linear", 0.5, ("tiny", "base"))
    results.cost("linear", 1, backbone="timm/vit_tiny_patch16_224", precision="bfloat16")
    [costs] = ladder_of(results).configurations
    assert min(cost for _, cost in costs.points["memory"]) == 10**9


def test_a_chart_of_many_methods(results: Results) -> None:
    families = ("baseline", "additive", "reparameterized", "peft", "no such family")
    for number in range(20):
        name = f"m{number} <b>$"
        results.method(name, families[number % 5])
        add_power_law(results, name, 0.5 + number / 50)
    add_power_law(results, "linear", 0.5)
    ladder = ladder_of(results)
    for quantity in ("memory", "train", "forward"):
        svg = scaling_chart(ladder, quantity)
        assert svg.startswith("<svg") and "<b>" not in svg
        assert "var(--family-peft)" in svg and "#0a0b" not in svg and "#010" not in svg
        assert all(f"m{number} &lt;b&gt;$" in svg for number in range(20))
        assert scaling_chart(ladder, quantity) == svg
