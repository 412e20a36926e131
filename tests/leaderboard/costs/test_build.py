"""Cost records to sheets: what is compared with what, and what never vanishes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peftmark.leaderboard.accuracy.measures import measures_of
from peftmark.leaderboard.costs.sheet import MemorySettings, Shape

if TYPE_CHECKING:
    from ..conftest import Results

GB = 10**9


def test_ratios_are_to_full_fine_tuning_of_the_same_sheet(results: Results) -> None:
    results.cost("full", 8 * GB, train_flops=6 * 10**12)
    results.cost("lora", 5 * GB, train_flops=4 * 10**12)
    results.cost("full", 80 * GB, backbone="timm/vit_large_patch16_224")
    results.cost("lora", 20 * GB, backbone="timm/vit_large_patch16_224")
    results.cost("lora", 1 * GB, batch_size=8)  # full fine-tuning at this batch is not known
    by_shape = {(s.backbone.name, s.shape.batch_size): s for s in results.efficiency().sheets}
    ratios = {key: {row.label: row.memory_ratio for row in sheet.rows} for key, sheet in by_shape.items()}
    assert ratios == {
        ("timm/vit_base_patch16_224", 8): {"lora": None},
        ("timm/vit_base_patch16_224", 64): {"lora": 0.625, "full": 1.0},
        ("timm/vit_large_patch16_224", 64): {"lora": 0.25, "full": 1.0},
    }
    rows = {row.label: row for row in by_shape["timm/vit_base_patch16_224", 64].rows}
    assert rows["lora"].flops_ratio == pytest.approx(2 / 3)


def test_a_variant_is_compared_with_its_own_precision_and_with_the_plain_row(results: Results) -> None:
    results.cost("full", 8 * GB)
    results.cost("full", 6 * GB, precision="bfloat16")
    results.cost("full", 2 * GB, checkpointing=True)
    results.cost("lora", 5 * GB)
    results.cost("lora", 3 * GB, precision="bfloat16")
    results.cost("lora", int(1.5 * GB), precision="bfloat16", frozen_dtype="int8")
    results.cost("lora", 1 * GB, checkpointing=True)
    results.cost("dora", 4 * GB, precision="bfloat16")  # not known without the variant
    rows = results.cost_rows()
    assert {label: (row.memory_ratio, row.saving_ratio) for label, row in rows.items()} == {
        "full": (1.0, None),
        "full bfloat16": (1.0, 0.75),
        "full checkpointing": (1.0, 0.25),
        "lora": (0.625, None),
        "lora bfloat16": (0.5, 0.6),
        "lora bfloat16 frozen int8": (0.25, 0.3),  # full fine-tuning freezes nothing
        "lora checkpointing": (0.5, 0.2),
        "dora bfloat16": (pytest.approx(2 / 3), None),
    }


def test_full_fine_tuning_freezes_nothing(results: Results) -> None:
    """So with its matrices in fewer bits it is the reference, too, where there is no other."""
    results.cost("full", 4 * GB, precision="bfloat16", frozen_dtype="nf4", checkpointing=True)
    results.cost("lora", 1 * GB, precision="bfloat16", frozen_dtype="nf4", checkpointing=True)
    results.cost("full", precision="bfloat16", status="oom")
    results.cost("full", 6 * GB, precision="bfloat16", frozen_dtype="int8")
    results.cost("lora", 3 * GB, precision="bfloat16")
    ratios = {row.label: row.memory_ratio for row in results.sheet().rows if row.method.name == "lora"}
    assert ratios == {"lora bfloat16": 0.5, "lora bfloat16 frozen nf4 checkpointing": 0.25}


def test_variants_follow_their_plain_row_and_failures_come_last(results: Results) -> None:
    results.cost("full", 8 * GB)
    results.cost("lora", 5 * GB)
    results.cost("lora", 6 * GB, precision="bfloat16")
    results.cost("lora", 1 * GB, precision="bfloat16", frozen_dtype="nf4", checkpointing=True)
    results.cost("fact", status="unsupported")
    results.cost("bitfit", 4 * GB)
    results.cost("bitfit", 9 * GB, frozen_dtype="bfloat16", precision="bfloat16")
    assert [row.label for row in results.sheet().rows] == [
        "bitfit",
        "bitfit bfloat16 frozen bfloat16",
        "lora",
        "lora bfloat16",
        "lora bfloat16 frozen nf4 checkpointing",
        "full",
        "fact",
    ]


@pytest.mark.parametrize("status", ["unsupported", "oom", "timeout", "error"])
def test_a_failure_is_a_row_with_its_reason(results: Results, status: str) -> None:
    results.cost("full", 8 * GB)
    results.cost("broken", status=status, message="needs a class token")
    row = results.cost_rows()["broken"]
    assert (row.peak, row.memory_ratio, row.parts) == (None, None, [])
    assert row.record.status == status
    assert row.reason == f"{status} in estimate: needs a class token"
    assert [failed.label for failed in results.sheet().failed] == ["broken"]


def test_out_of_memory_on_hardware_keeps_the_estimate(results: Results) -> None:
    results.cost("full", 80 * GB, hardware="cuda:small", status="oom", phase="memory", message="tried 80 GB")
    row = results.cost_rows()["full"]
    assert row.peak == 80 * GB  # known before the attempt
    [table] = results.sheet().hardware
    assert (table.hardware, table.rows[0].memory) == ("cuda:small", None)
    assert table.rows[0].reason == "oom in memory: tried 80 GB"
    assert (table.has_memory, table.has_speed) == (False, False)
    assert (results.sheet().failed, [r.row.label for r in table.failed]) == ([], ["full"])


def test_hardware_is_never_compared_across(results: Results) -> None:
    results.cost("full", 8 * GB)
    results.cost("lora", 5 * GB)
    for hardware, full, lora in (("cuda:A", 10, 6), ("cuda:B", 12, 9)):
        results.cost("full", 8 * GB, hardware=hardware, measured=full * GB, step_ms=200.0)
        results.cost("lora", 5 * GB, hardware=hardware, measured=lora * GB, step_ms=130.0)
    results.cost("vpt", 5 * GB, hardware="cpu:C", step_ms=900.0)
    sheet = results.sheet()
    assert [row.label for row in sheet.rows] == ["lora", "vpt", "full"]  # one each, whatever the hardware
    assert sheet.rows[0].record.spec.hardware_class is None
    ratios = {table.hardware: {r.row.label: r.memory_ratio for r in table.rows} for table in sheet.hardware}
    assert ratios == {
        "cpu:C": {"vpt": None},
        "cuda:A": {"lora": 0.6, "full": 1.0},
        "cuda:B": {"lora": 0.75, "full": 1.0},
    }
    assert [(table.has_memory, table.has_speed) for table in sheet.hardware] == [
        (False, True),
        (True, True),
        (True, True),
    ]


def test_the_estimate_is_never_the_measured_memory(results: Results) -> None:
    results.cost("full", 8 * GB, hardware="cuda:A", measured=10 * GB)
    row = results.cost_rows()["full"]
    assert row.peak == 8 * GB
    assert sum(size for _, size in row.parts) == 8 * GB


def test_configurations_and_versions(results: Results) -> None:
    results.method("lora", "reparameterized", defaults={"rank": 8})
    results.cost("full", 9 * GB, method_version=1)
    results.cost("full", 8 * GB, method_version=2)
    results.cost("lora", 4 * GB, config={"rank": 8})
    results.cost("lora", 5 * GB, config={"rank": 16})
    rows = results.cost_rows()
    assert set(rows) == {"full v1", "full v2", "lora", "lora rank=16"}
    assert (rows["full v1"].superseded, rows["full v2"].superseded) == (True, False)
    assert rows["lora"].memory_ratio == 0.5  # to the newest version


def test_the_bare_backbone_is_linear_without_its_head(results: Results) -> None:
    results.cost("masked", 8 * GB, size=900)  # counts fewer, but is not bare
    results.cost("linear", 8 * GB, size=1_000, params=0, head=70)
    results.cost("masked", 8 * GB, size=900, batch_size=8)
    assert [sheet.size for sheet in results.efficiency().sheets] == [1_000, 1_000]
    results.cost("masked", 8 * GB, size=900, backbone="other")
    results.cost("lora", 8 * GB, size=1_200, params=10, backbone="other")
    assert results.efficiency().by_backbone["other"][0].size == 1_210


def test_the_overview_takes_the_input_with_most_rows(results: Results) -> None:
    for method in ("full", "lora", "vpt"):
        results.cost(method, 8 * GB)
    results.cost("full", 1 * GB, batch_size=8)
    results.cost("lora", 1 * GB, batch_size=8)
    results.cost("lora", 1 * GB, precision="bfloat16", batch_size=8)
    results.cost("lora", 4 * GB, backbone="timm/vit_large_patch16_224")
    efficiency = results.efficiency()
    main = efficiency.main_sheet("timm/vit_base_patch16_224")
    assert main is not None and main.shape == Shape(64, (3, 224, 224), 100)
    assert efficiency.main_sheet("absent") is None
    large = efficiency.main_sheet("timm/vit_large_patch16_224")
    assert large is not None
    overview = efficiency.overview([main, large])
    found = {row.label: [cell.memory_ratio if cell else "none" for cell in cells] for row, cells in overview.rows}
    assert found == {"full": [1.0, "none"], "vpt": [1.0, "none"], "lora": [1.0, None]}


def test_variants_are_named_by_what_departs_from_the_plain_one() -> None:
    assert MemorySettings().plain and MemorySettings().badges == ()
    assert MemorySettings("int8", True, "bfloat16").badges == ("bfloat16", "frozen int8", "checkpointing")
    assert MemorySettings(optimizer="sgd").badges == ("sgd",)


class TestJoin:
    """Runs join costs by method, version, configuration and backbone."""

    def test_by_spec(self, results: Results) -> None:
        backbone = "timm/vit_base_patch16_224"
        results.cost("full", 8 * GB)
        results.cost("lora", 4 * GB, config={"rank": 8})
        results.cost("lora", 1 * GB, config={"rank": 8}, precision="bfloat16")
        results.cost("ssf", 2 * GB, method_version=2)
        results.cost("vpt", status="oom")
        results.run("lora", "vtab/a", 50.0, config={"rank": 8}, backbone=backbone)
        results.run("lora", "vtab/a", 50.0, config={"rank": 16}, backbone=backbone)
        results.run("ssf", "vtab/a", 50.0, backbone=backbone)
        results.run("vpt", "vtab/a", 50.0, backbone=backbone)
        rows = {(row.method.name, row.config.get("rank")): row.cost for row in results.table().rows}
        joined = rows["lora", 8]
        assert joined is not None and (joined.peak, joined.memory_ratio) == (4 * GB, 0.5)
        assert rows["lora", 16] is None  # another configuration
        assert rows["ssf", None] is None  # another version
        failed = rows["vpt", None]
        assert failed is not None and failed.record.status == "oom"
        assert results.table().cost_shape == Shape(64, (3, 224, 224), 100)

    def test_no_column_without_costs(self, results: Results) -> None:
        results.run("lora", "vtab/a", 50.0)
        results.cost("lora", 4 * GB)  # on another backbone
        assert results.table().cost_shape is None
        assert [measure.key for measure in measures_of(results.table().rows)] == ["parameters", "stored"]
