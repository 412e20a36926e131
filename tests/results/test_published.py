"""Published figures: the shipped file, its names, and what is refused."""

from __future__ import annotations

from collections import Counter

import pytest

from peftmark import METHODS
from peftmark.errors import PeftmarkError
from peftmark.results.published import PublishedFigure, load_published, published_names, read_published

HEADER = "benchmark,method,dataset,group,metric,value,trainable_params_millions,backbone,source\n"
VIT = "vit_base_patch16_224 ImageNet-21k"


def one(line: str) -> PublishedFigure:
    [figure] = read_published(HEADER + line, published_names(), "figures.csv")
    return figure


def test_all_figures_are_there_with_their_sources() -> None:
    figures = load_published()
    assert Counter(figure.benchmark for figure in figures) == {
        "vtab1k_osu": 640, "vtab1k": 380, "fgvc": 75, "video": 28, "base_to_new": 24, "domain_generalization": 20,
    }  # fmt: skip
    assert all(figure.source and 0 <= figure.value <= 100 for figure in figures)
    assert [figure.line for figure in figures] == list(range(2, 1169))


def test_every_method_is_registered_or_known_to_be_absent() -> None:
    names, figures = published_names(), load_published()
    assert {f.method for f in figures} - set(METHODS.names()) == set(names.absent)
    assert {f.method for f in figures if "method" in f.unaligned} == set(names.absent)


def test_known_figures_under_peftmark_s_names() -> None:
    by_cell = {(f.benchmark, f.method, f.task): f for f in load_published() if f.metric == "top1"}
    full = by_cell["vtab1k", "full", "vtab/cifar"]
    assert (full.value, full.parameters_millions, full.backbone) == (68.9, 85.8, "timm/vit_base_patch16_224.orig_in21k")
    assert full.comparable
    assert by_cell["vtab1k", "ssf", "vtab/cifar"].backbone == "timm/vit_base_patch16_224.augreg_in21k"
    assert ("vtab1k", "lora", "vtab/cifar") not in by_cell  # NOAH's LoRA is lora_fused
    clip = by_cell["domain_generalization", "tpt", "domain_generalization/imagenet_sketch"]
    assert (clip.value, clip.backbone) == (47.94, "open_clip/ViT-B-16-quickgelu.openai")
    aim = [f for f in load_published() if (f.method, f.task) == ("aim", "video/k400")]
    assert [f.setting for f in aim] == ["8 frames", "16 frames", "32 frames"]


def test_the_study_that_publishes_both_epochs() -> None:
    last = one(f"vtab1k_osu,lora_p_adapter,cifar,,top1_last_epoch,70.1,0.6,{VIT},a")
    best = one(f"vtab1k_osu,lora_p_adapter,cifar,,top1_best_on_test,71.1,0.6,{VIT},a")
    assert last.method == "pfeiffer_adapter"
    assert (last.comparable, best.comparable) == (True, False)


def test_what_cannot_be_aligned_keeps_its_name_and_is_compared_with_nothing() -> None:
    method = one(f"vtab1k,dtl,cifar,natural,top1,69.6,0.04,{VIT},a")
    task = one(f"vtab1k_osu,ssf,cifar_aug_norm,,top1_last_epoch,69.6,,{VIT},a")
    backbone = one("video,lora,ssv2,,top1,38.3,0.75,ViT-B Kinetics 400,a")
    assert [f.unaligned for f in (method, task, backbone)] == [("method",), ("task",), ("backbone",)]
    assert (method.method, task.task, backbone.backbone) == ("dtl", "cifar_aug_norm", "ViT-B Kinetics 400")
    assert task.parameters_millions is None
    assert not any(figure.comparable for figure in (method, task, backbone))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"vtab1k,full,cifar,natural,top1,689,85.8,{VIT},a", "figures.csv, line 2: 689 is no percentage"),
        (f"vtab1k,full,cifar,natural,top1,-1,85.8,{VIT},a", "figures.csv, line 2: -1 is no percentage"),
        (f"vtab1k,full,cifar,natural,top1,many,85.8,{VIT},a", "figures.csv, line 2: Expected `float`"),
        (f"vtab1k,full,cifar,natural,top5,68.9,85.8,{VIT},a", "figures.csv, line 2: Invalid enum value 'top5'"),
        (f"vtab2k,full,cifar,natural,top1,68.9,85.8,{VIT},a", "line 2: names.toml does not know the benchmark vtab2k"),
        (
            f"vtab1k,full,cifar,natural,top1,68.9,85.8,{VIT},",
            "figures.csv, line 2: a published figure needs its source",
        ),
        ("vtab1k,full,cifar", "figures.csv, line 2: there are not 9 columns"),
    ],
)
def test_a_bad_line_is_named(line: str, message: str) -> None:
    with pytest.raises(PeftmarkError) as caught:
        one(line)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(PeftmarkError, match="has no column source"):
        read_published(HEADER.replace(",source", ""), published_names(), "figures.csv")
