"""From a run with a saved adapter to a PEFT folder, and from that to a run that predicts the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from peftmark.benchmark.launch.outcome import Options
from peftmark.benchmark.plan.runs import Request, plan
from peftmark.benchmark.run.run import run
from peftmark.benchmark.run.saved import load_run, write_peft_folders
from peftmark.errors import PeftmarkError
from peftmark.results import RunRecord, Store

pytest.importorskip("peft")

CPU = torch.device("cpu")


def carry_out(results: Path, method: str, save: bool = True, **config: Any) -> RunRecord:
    """On the embedded ViT; the record and, where it is saved, the adapter are in the results folder."""
    request = Request(
        methods=[method],
        tasks=["toy/bright"],
        backbones=["embedded/vit"],
        seeds=[0],
        method_settings=config,
        protocol_settings={"epochs": 2, "learning_rate": 0.01},
    )
    [spec] = plan(request).specs
    assert not isinstance(spec.backbone, str)
    record = run(spec, CPU, None, results / "adapters" / f"{spec.id}.safetensors" if save else None)
    Store(results).write(record)
    return record


@pytest.mark.usefixtures("toy_plugin")
def test_a_run_s_adapter_and_back(tmp_path: Path) -> None:
    results = tmp_path / "runs"
    first, second = carry_out(results, "lora", rank=2), carry_out(results, "dora", rank=2)
    assert write_peft_folders(results, (first.run_id,), tmp_path / "one") == [tmp_path / "one"]
    folders = [tmp_path / "two" / record.run_id for record in (first, second)]
    assert write_peft_folders(results, (first.run_id, second.run_id), tmp_path / "two") == folders
    for record, folder in zip((first, second), folders, strict=True):
        loaded = carry_out(results, "peft_folder/mine", path=str(folder))
        assert record.status == loaded.status == "ok"
        assert record.quality is not None
        assert loaded.quality is not None
        assert loaded.quality.predictions_sha256 == record.quality.predictions_sha256
        assert loaded.quality.curve == []
        assert str(tmp_path) not in json.dumps(loaded.spec.method.config)
        assert (
            Options(results, "cpu", 1, None, False, False, ()).method_files[loaded.spec.method.config["adapter_sha256"]]
            == folder
        )
    model = load_run(results, first.run_id)
    assert not model.training
    torch.testing.assert_close(
        model.adapter_state_dict(), load_run(results, first.run_id).adapter_state_dict(), rtol=0, atol=0
    )


@pytest.mark.usefixtures("toy_plugin")
def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    results, out = tmp_path / "runs", tmp_path / "out"
    unsaved, prompts = carry_out(results, "lora", save=False), carry_out(results, "vpt_shallow")
    damaged, failed = carry_out(results, "ia3"), carry_out(results, "clip_lora")
    file = results / "adapters" / f"{damaged.run_id}.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    for runs, message in (
        ((), "name the runs whose adapters are to be written"),
        (("0" * 16,), "there is no run 0000000000000000 in .*: give the name of a record's file"),
        (("../../etc/passwd",), "there is no run ../../etc/passwd"),
        ((unsaved.run_id,), "was not saved: run it with --save-adapters --existing overwrite"),
        ((prompts.run_id,), f"run {prompts.run_id} cannot be written: VPTShallow has no equal among PEFT's tuners"),
        ((damaged.run_id,), r"cannot be read \(.*\): is it whole\?"),
        ((failed.run_id,), "has no adapter: it ended as unsupported"),
    ):
        with pytest.raises(PeftmarkError, match=message) as error:
            write_peft_folders(results, runs, out)
        assert "\n" not in str(error.value)
    assert not out.exists()


def test_a_worker_finds_the_folder(command: Callable[..., Any], toys: Path, tmp_path: Path) -> None:
    """In a process of its own, which has the spec alone: the adapter's hash, not its place."""
    import peft
    import timm

    sizes = {"img_size": 40, "patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 4}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, pre_norm=True, **sizes)
    peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules=["attn.proj"])).save_pretrained(tmp_path / "adapter")
    ended = command(
        "run", "--import", toys, "--task", "toy/bright", "--backbone", "embedded/vit", "--device", "cpu", "--jobs", 1,
        "--method", "peft_folder/theirs", "--set", "method.path=adapter", "--set", "protocol.epochs=1",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    [record] = Store(tmp_path / "runs").load()[0]
    assert (record.status, record.spec.method.name) == ("ok", "peft_folder/theirs")
    assert record.spec.method.config["train"] == "head"
    assert record.params is not None
    assert record.params.trainable_without_head == 0
    assert record.params.stored == record.params.trainable + 6 * 2 * 8 * 128
