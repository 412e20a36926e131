"""Trainable parameters, head excluded, on the backbones of the papers: exact."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from functools import lru_cache

import pytest
import torch

from peftmark import METHODS
from peftmark.adapting import adapt
from peftmark.backbones import Anatomy, find_backbone
from peftmark.methods.parts.evolution import Architecture

D, BLOCKS, FFN = 768, 12, 3072


def prefix_mlp(length: int, hidden: int) -> int:
    """Tokens, the first layer, and the last, which puts out keys and values of every block."""
    return length * D + (D * hidden + hidden) + 2 * BLOCKS * D * (hidden + 1)


CIFAR100 = Architecture(
    prompts=(10, 5, 10, 1, 5, 1, 10, 1, 10, 5, 1, 10),
    rank=(10, 1, 5, 5, 1, 10, 1, 1, 1, 10, 1, 1),
    bottleneck=(5, 10, 10, 10, 5, 1, 1, 1, 10, 10, 10, 1),
)
"""NOAH experiments/NOAH/subnet/VTAB/ViT-B_prompt_cifar100.yaml."""

FRAMES = 8
VIT_B16 = {
    # three or four adapters a block (D -> D/4 -> D), a vector for each of 8 frames, the final norm
    ("aim", ()): 10_651_392 + FRAMES * D + 2 * D,
    ("aim", (("temporal_adapters", 2),)): 14_201_856 + FRAMES * D + 2 * D,
    ("aim", (("ratio", 0.125), ("steps", ("spatial",)))): BLOCKS * (2 * D * 96 + 96 + D) + FRAMES * D + 2 * D,
    # weight D·D and bias D of q, k, v and proj
    ("attention_only", ()): BLOCKS * 4 * (D * D + D),
    ("partial", ()): 7_089_408,
    # a block: qkv and proj, fc1 and fc2, two norms; and the final norm
    ("partial", (("k", 3),)): 3 * (4 * (D * D + D) + 2 * D * FFN + FFN + D + 2 * 2 * D) + 2 * D,
    ("adaptformer", ()): 1_189_632,
    ("adaptformer", (("bottleneck", 8),)): 156_768,
    ("bitfit", ()): 102_912,
    ("convpass", ()): 327_552,
    ("convpass", (("targets", ("attention",)),)): 163_776,
    # rank·(in + out) + out of q and v
    ("dora", ()): BLOCKS * 2 * (8 * 2 * D + D),
    ("dora", (("rank", 4), ("targets", ("fc1",)))): BLOCKS * (4 * (D + FFN) + FFN),
    ("dylora", ()): 294_912,
    # five adapters a block (D -> D/4 -> D), the class token, the backbone's positions and those of grids
    ("dualpath", ()): 17_752_320 + D + 2 * 197 * D,
    ("dualpath", (("ratio", 0.125), ("grid", 2))): BLOCKS * 5 * (2 * D * 96 + 96 + D) + D + 2 * 197 * D,
    ("fact_tk", ()): 1_680 * 32 + 32**3,
    ("fact_tk", (("rank", 8),)): 13_952,
    ("fact_tt", ()): 1_536 * 16 + 144 * 16**2,
    ("fact_tt", (("rank", 4),)): 8_448,
    ("full", ()): 85_798_656,
    # prompts, 11 gates, 12 temperatures
    ("gated_vpt", ()): 76_823,
    ("gated_vpt", (("prompt_length", 10),)): 768 * 10 + 23,
    # two bottlenecks a block and the norms of `layernorm`
    ("houlsby_adapter", ()): BLOCKS * 2 * (2 * D * 64 + 64 + D) + 38_400,
    ("houlsby_adapter", (("bottleneck", 8), ("train_norms", False))): 313_536,
    # keys and values D wide, hidden activations FFN wide
    ("ia3", ()): BLOCKS * (2 * D + FFN),
    ("layernorm", ()): 38_400,
    ("linear", ()): 0,
    ("lora", ()): 294_912,
    ("lora_fused", ()): 294_912,
    # one A, D -> rank; B, rank -> 3·D
    ("lora_fused", (("rank", 2),)): BLOCKS * (2 * D + 2 * 3 * D),
    # q, k, v and proj: D -> D; fc1: D -> FFN; fc2: FFN -> D; rank·(in + out) each
    ("lora", (("rank", 4), ("targets", ("q", "k", "v", "proj", "fc1", "fc2")))): BLOCKS
    * 4
    * (4 * 2 * D + 2 * (D + FFN)),
    # 30 prefixes, and a bottleneck of 512 a block
    ("mam_adapter", ()): 2 * BLOCKS * 30 * D + BLOCKS * (2 * D * 512 + 512 + D),
    ("mam_adapter", (("reparameterized", True),)): prefix_mlp(30, 800) + BLOCKS * (2 * D * 512 + 512 + D),
    # norm, two scales, down and up; depthwise 3x3, 5x5 and 7x7, and a 1x1 convolution
    ("mona", ()): BLOCKS * 2 * (2 * D * 64 + 5 * D + 64**2 + 88 * 64),
    # prompts, LoRA on the fused qkv, an adapter, each 10 wide in every block
    ("noah", ()): BLOCKS * (10 * D + 10 * 4 * D + 2 * 10 * D + 10 + D),
    # the subnet that is shipped for CIFAR-100: 69 prompts, ranks that add up to 47, bottlenecks to 74
    ("noah", (("architecture", CIFAR100),)): 69 * D + 47 * 4 * D + 74 * (2 * D + 1) + BLOCKS * D,
    ("parallel_adapter", ()): BLOCKS * (2 * D * 384 + 384 + D),
    ("parallel_adapter", (("bottleneck", 8),)): BLOCKS * (2 * D * 8 + 8 + D),
    ("pfeiffer_adapter", ()): 156_768,
    ("pfeiffer_adapter", (("reads", "output+residual"),)): 156_768,
    ("prefix_tuning", ()): 2 * BLOCKS * 10 * D,
    ("prefix_tuning", (("reparameterized", True),)): prefix_mlp(10, 512),
    ("repadapter", ()): 239_808,
    # two adapters a block: A (D -> h) with bias; B in 4 groups, with bias
    ("repadapter", (("bottleneck", 16), ("groups", 4))): BLOCKS * 2 * (D * 16 + 16 + D * 4 + D),
    ("scratch", ()): 85_798_656,
    ("ssf", ()): 205_824,
    # 12x and 24x: D -> 384 -> D, with a depthwise convolution over three frames between
    ("st_adapter", ()): 7_110_144,
    ("st_adapter", (("targets", ("attention", "mlp")),)): 14_220_288,
    ("st_adapter", (("bottleneck", 8), ("kernel", (3, 3, 3)))): BLOCKS * (2 * D * 8 + 8 + D + 8 * 27 + 8),
    ("unipelt", ()): 11_083_376,
    # prefix, adapter, LoRA on q and v, four gates a block
    ("unipelt", (("prompt_length", 4), ("hidden", 32), ("bottleneck", 8), ("rank", 2))): prefix_mlp(4, 32)
    + BLOCKS * (2 * D * 8 + 8 + D)
    + BLOCKS * 2 * 2 * (2 * D)
    + BLOCKS * 4 * (D + 1),
    # d (rank) and b (out) of q and v
    ("vera", ()): BLOCKS * 2 * (256 + D),
    ("vera", (("rank", 64), ("targets", ("q", "k", "v", "proj", "fc1", "fc2")))): BLOCKS * (6 * 64 + 5 * D + FFN),
    ("vpt_deep", ()): 9_216 * 10,
    ("vpt_deep", (("prompt_length", 1),)): 9_216,
    ("vpt_shallow", ()): 768 * 10,
    ("vpt_shallow", (("prompt_length", 1),)): 768,
}
CLIP_B16 = {
    ("coop", ()): 8_192,
    ("coop", (("n_ctx", 4),)): 2_048,
    ("coop", (("init_words", "a photo of a"),)): 2_048,
    # one context a class: 3 classes
    ("coop", (("class_specific", True),)): 3 * 8_192,
    ("zero_shot", ()): 0,
    # the three classes' rows and biases
    ("linear_probe", ()): 3 * (512 + 1),
    ("clip_adapter", ()): 131_072,
    # q, k and v of the image tower (D) and of the text tower (512): rank·(in + out) each
    ("clip_lora", ()): 184_320,
    ("clip_lora", (("encoder", "vision"),)): BLOCKS * 3 * 2 * 2 * D,
    ("clip_lora", (("encoder", "text"),)): BLOCKS * 3 * 2 * 2 * 512,
    ("clip_lora", (("rank", 4), ("targets", ("q", "v")))): BLOCKS * 2 * 4 * 2 * (D + 512),
    ("tpt", ()): 2_048,
    ("tpt", (("init_words", "a picture"),)): 2 * 512,
    # the context, and a meta-net of 512 -> 32 -> 512
    ("cocoop", ()): 35_360,
    ("kgcoop", ()): 2_048,
    ("prograd", ()): 8_192,
    ("ivlp", ()): 30_720,
    ("ivlp", (("n_ctx", 4), ("prompt_length", 4), ("depth", 9))): 46_080,
    ("maple", ()): 3_555_072,
    # the context, and one projection
    ("maple", (("depth", 1),)): 2 * 512 + 512 * D + D,
    ("promptsrc", ()): 46_080,
    # the ViT-B/16 above, whose patch embedding has a bias where CLIP has a norm before the blocks
    ("layernorm", ()): 38_400 + 2 * D,
    ("lora", ()): 294_912,
}


# blocks a stage and their width
SWIN_T = ((2, 96), (2, 192), (6, 384), (2, 768))
SWIN_B = ((2, 128), (2, 256), (18, 512), (2, 1024))
CONVNEXT_T = ((3, 96), (3, 192), (9, 384), (3, 768))
CONVNEXT_B = ((3, 128), (3, 256), (27, 512), (3, 1024))
VIT_S14 = ((12, 384),)


def over_blocks(stages: tuple[tuple[int, int], ...], per_width: int, constant: int = 0) -> int:
    """The sum over all blocks of ``per_width * D + constant``."""
    return sum(blocks * (per_width * width + constant) for blocks, width in stages)


def outside_swin(stages: tuple[tuple[int, int], ...]) -> int:
    """Channels of the stem's convolution and norm, of each merging's norm (four patches wide), of the final norm."""
    widths = [width for _, width in stages]
    return 2 * widths[0] + 4 * sum(widths[:-1]) + widths[-1]


def outside_convnext(stages: tuple[tuple[int, int], ...]) -> int:
    """Channels of the stem's convolution and norm, of each downsampling's norm and convolution, of the final norm."""
    widths = [width for _, width in stages]
    return 2 * widths[0] + sum(widths[:-1]) + sum(widths[1:]) + widths[-1]


FAMILIES = {
    # q and v, D -> D
    ("swin_tiny_patch4_window7_224", "lora"): over_blocks(SWIN_T, 2 * 8 * 2),
    ("swin_tiny_patch4_window7_224", "adaptformer"): over_blocks(SWIN_T, 2 * 64 + 1, 64),
    ("swin_tiny_patch4_window7_224", "pfeiffer_adapter"): over_blocks(SWIN_T, 2 * 8 + 1, 8),
    # norm1, qkv, proj, norm2, fc1, fc2: 11·D channels a block
    ("swin_tiny_patch4_window7_224", "ssf"): 2 * (over_blocks(SWIN_T, 11) + outside_swin(SWIN_T)),
    ("swin_base_patch4_window7_224", "ssf"): 2 * (over_blocks(SWIN_B, 11) + outside_swin(SWIN_B)),
    ("swin_tiny_patch4_window7_224", "bitfit"): over_blocks(SWIN_T, 11) + outside_swin(SWIN_T),
    ("swin_tiny_patch4_window7_224", "layernorm"): 2 * (over_blocks(SWIN_T, 2) + outside_swin(SWIN_T) - 96),
    # fc1 and fc2, D <-> 4·D
    ("convnext_tiny", "lora"): over_blocks(CONVNEXT_T, 2 * 8 * 5),
    ("convnext_tiny", "adaptformer"): over_blocks(CONVNEXT_T, 2 * 64 + 1, 64),
    ("convnext_tiny", "pfeiffer_adapter"): over_blocks(CONVNEXT_T, 2 * 8 + 1, 8),
    # convolution, norm, fc1, fc2: 7·D channels a block
    ("convnext_tiny", "ssf"): 2 * (over_blocks(CONVNEXT_T, 7) + outside_convnext(CONVNEXT_T)),
    ("convnext_base", "ssf"): 2 * (over_blocks(CONVNEXT_B, 7) + outside_convnext(CONVNEXT_B)),
    ("convnext_tiny", "bitfit"): over_blocks(CONVNEXT_T, 7) + outside_convnext(CONVNEXT_T),
    # less the stem's and the downsamplings' convolutions
    ("convnext_tiny", "layernorm"): 2
    * (over_blocks(CONVNEXT_T, 1) + outside_convnext(CONVNEXT_T) - (96 + 192 + 384 + 768)),
    # registers and layer scales count nowhere
    ("vit_small_patch14_reg4_dinov2", "lora"): over_blocks(VIT_S14, 2 * 8 * 2),
    ("vit_small_patch14_reg4_dinov2", "adaptformer"): over_blocks(VIT_S14, 2 * 64 + 1, 64),
    ("vit_small_patch14_reg4_dinov2", "pfeiffer_adapter"): over_blocks(VIT_S14, 2 * 8 + 1, 8),
    ("vit_small_patch14_reg4_dinov2", "ssf"): 2 * (over_blocks(VIT_S14, 11) + 2 * 384),
    ("vit_small_patch14_reg4_dinov2", "bitfit"): over_blocks(VIT_S14, 11) + 2 * 384,
    ("vit_small_patch14_reg4_dinov2", "layernorm"): 25 * 2 * 384,
    # as ViT-B/16; where every parameter counts, the pooling by attention has q, kv, proj, a norm and an MLP
    ("vit_base_patch16_siglip_224", "lora"): 294_912,
    ("vit_base_patch16_siglip_224", "adaptformer"): 1_189_632,
    ("vit_base_patch16_siglip_224", "pfeiffer_adapter"): 156_768,
    ("vit_base_patch16_siglip_224", "ssf"): 205_824,
    ("vit_base_patch16_siglip_224", "bitfit"): 102_912 + 5 * D + FFN + D,
    ("vit_base_patch16_siglip_224", "layernorm"): 38_400 + 2 * D,
}


def _count(backbone: str, method: str, config: tuple[tuple[str, object], ...], **classes: object) -> int:
    """On a backbone without storage: counts need shapes only."""
    with torch.device("meta"):
        model = adapt(find_backbone(backbone).build(pretrained=False), method, **classes, **dict(config))
    return model.trainable_parameters(include_head=False)


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """Models that the tests share are not kept for those of other files."""
    yield
    _weights.cache_clear()
    gc.collect()


@pytest.mark.parametrize(("key", "count"), VIT_B16.items(), ids=str)
def test_vit_b16(key: tuple[str, tuple[tuple[str, object], ...]], count: int) -> None:
    clips = {"num_frames": FRAMES} if METHODS.entry(key[0]).metadata["tracks"] == ("video",) else {}
    assert _count("vit_base_patch16_224", *key, num_classes=100, **clips) == count


@pytest.mark.parametrize(("key", "count"), FAMILIES.items(), ids=str)
def test_backbone_families(key: tuple[str, str], count: int) -> None:
    assert _count(*key, (), num_classes=100) == count


def test_ssf_has_the_paper_s_parameters() -> None:
    """In millions, with a head of 100 classes (Lian et al. 2022): 0.28 on ViT-B/16, 0.36 on ConvNeXt-B."""
    assert round((205_824 + 100 * (D + 1)) / 1e6, 2) == 0.28
    assert FAMILIES["convnext_base", "ssf"] == 260_608
    assert round((260_608 + 100 * (1024 + 1)) / 1e6, 2) == 0.36
    assert FAMILIES["swin_base_patch4_window7_224", "ssf"] == 274_432


@pytest.mark.usefixtures("gigabytes")
@pytest.mark.parametrize(("key", "count"), CLIP_B16.items(), ids=str)
def test_clip_b16(key: tuple[str, tuple[tuple[str, object], ...]], count: int) -> None:
    model = adapt(_clip(), key[0], class_names=["cat", "dog", "owl"], pretrained=False, **dict(key[1]))
    assert model.trainable_parameters(include_head=False) == count


def test_dualpath_on_clip_b16() -> None:
    model = adapt(_clip(), "dualpath", num_classes=3, num_frames=16)
    assert model.trainable_parameters(include_head=False) == 18_055_680


@lru_cache(maxsize=1)
def _weights() -> Anatomy:
    return find_backbone("open_clip/ViT-B-16").build(pretrained=False)


def _clip() -> Anatomy:
    """A copy over the same 0.6 GB of weights, which counting only reads: tokens are looked up in real tables."""
    anatomy = _weights()
    shared = {id(p): torch.nn.Parameter(p.detach(), requires_grad=False) for p in anatomy.root.parameters()}
    return copy.deepcopy(anatomy, shared)


def test_every_method_has_a_count() -> None:
    """A method that changes nothing of its own (`frame_mean`) is counted by the method that it runs.

    Those that score parameters need data, which the meta device has not: test_masks.py counts them.
    """
    counted = {name for name, _ in (*VIT_B16, *CLIP_B16)}
    scoring = {name for name in METHODS.expand("*") if METHODS[name].needs_batches}
    assert set(METHODS.expand("*")) - counted - scoring == {"frame_mean"}


def test_the_head_is_counted_apart() -> None:
    with torch.device("meta"):
        model = adapt(find_backbone("vit_base_patch16_224").build(pretrained=False), "bitfit", num_classes=100)
    assert model.trainable_parameters() - model.trainable_parameters(include_head=False) == 100 * (D + 1)
