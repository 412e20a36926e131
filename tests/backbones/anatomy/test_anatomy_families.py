"""Anatomies beyond plain transformers: Swin, ConvNeXt, and other stems, heads and poolings."""

from __future__ import annotations

import pytest
import timm
import torch
from inserts import Add, Double, Twice, build
from torch import Tensor, nn

from peftmark.backbones import Anatomy, Insert, find_backbone
from peftmark.backbones.anatomy.slots import module_slots
from peftmark.backbones.timm.builder import timm_anatomy
from peftmark.errors import NotMergeable, Unsupported


class Scaled(Insert):
    """``factor * x``; the factor tells one slot from another."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


SWIN = {"img_size": 32, "window_size": 4, "embed_dim": 12, "depths": (2, 2), "num_heads": (2, 3)}
CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, 20), "ls_init_value": 0.5}
FAMILIES = {
    "swin": ("swin_tiny_patch4_window7_224", SWIN),
    "padded swin": ("swin_tiny_patch4_window7_224", {**SWIN, "img_size": 40}),
    "convnext": ("convnext_tiny", CONVNEXT),
    "convnext of convolutions": ("convnext_tiny", {**CONVNEXT, "conv_mlp": True}),
    "convnext v2": ("convnextv2_tiny", {**CONVNEXT, "ls_init_value": None}),
    "convnext with two stem convolutions": ("convnext_tiny", {**CONVNEXT, "stem_type": "overlap_tiered"}),
    "convnext normed before pooling": ("convnext_tiny", {**CONVNEXT, "head_norm_first": True}),
    "siglip": ("vit_base_patch16_siglip_224", {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2}),
    "mean of patches": ("vit_base_patch16_224", {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2,
                                                 "global_pool": "avg"}),
    "giant dinov2": ("vit_giant_patch14_reg4_dinov2", {"img_size": 28, "embed_dim": 24, "depth": 2, "num_heads": 2}),
}  # fmt: skip


def small(family: str) -> Anatomy:
    """With weights, norms and biases far from where they start."""
    name, sizes = FAMILIES[family]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, pretrained_cfg_overlay={"input_size": (3, 64, 64)}, **sizes)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=0.5, std=0.3)
        else:
            parameter.data.mul_(5)
    return timm_anatomy(name, model.eval(), model.pretrained_cfg)


def images_for(anatomy: Anatomy, n: int = 2) -> Tensor:
    return torch.randn(n, 3, *anatomy.image_size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_empty_slots_change_nothing(family: str, training: bool) -> None:
    """In training mode drop path draws the same, too."""
    anatomy = small(family)
    for stochastic in (m for m in anatomy.model.modules() if type(m).__name__ == "DropPath"):
        stochastic.drop_prob = 0.5
    anatomy.model.train(training)
    images = images_for(anatomy, n=4)
    outputs = []
    for slotted in (False, True):
        if slotted:
            for block in anatomy.blocks:
                block.slots()
            for operation in anatomy.operations:
                module_slots(operation.module, operation.channels_first)
        torch.manual_seed(3)
        with torch.no_grad():
            outputs.append(anatomy.pooled(images))
    assert torch.equal(*outputs)
    anatomy.merge()
    assert not any("slots" in name for name, _ in anatomy.model.named_modules())


def test_parts_of_a_swin() -> None:
    anatomy = small("swin")
    first, second = anatomy.model.layers
    assert [block.module for block in anatomy.blocks] == [*first.blocks, *second.blocks]
    assert [block.width for block in anatomy.blocks] == [12, 12, 24, 24]
    embed, merging, block = anatomy.model.patch_embed, second.downsample, anatomy.blocks[2]
    inside = second.blocks[0]
    order = [inside.norm1, inside.attn.qkv, inside.attn.proj, inside.norm2, inside.mlp.fc1, inside.mlp.fc2]
    assert [operation.module for operation in block.operations] == order
    modules = [operation.module for operation in anatomy.operations]
    assert modules[:2] == [embed.proj, embed.norm]
    assert modules[14 : 14 + 7] == [merging.norm, *order]
    assert merging.reduction not in modules
    assert modules[-1] is anatomy.model.norm
    assert (anatomy.grid, anatomy.prefix_tokens, anatomy.image_size) == (None, 0, (32, 32))
    with pytest.raises(Unsupported, match="different widths"):
        _ = anatomy.width
    for add in (block.add_before, block.add_carry):
        with pytest.raises(Unsupported, match="a SwinTransformerBlock is a map, which has no place for more tokens"):
            add(Twice())
    for add in (block.attention.add_prefix, block.attention.add_query):
        with pytest.raises(Unsupported, match="WindowAttention"):
            add(Twice())


@pytest.mark.parametrize("family", ["convnext", "convnext of convolutions"])
def test_parts_of_a_convnext(family: str) -> None:
    anatomy = small(family)
    stages = anatomy.model.stages
    assert [block.module for block in anatomy.blocks] == [block for stage in stages for block in stage.blocks]
    assert [block.width for block in anatomy.blocks] == [8, 12, 16, 16, 20]
    block, inside = anatomy.blocks[1], stages[1].blocks[0]
    order = [inside.conv_dw, inside.norm, inside.mlp.fc1, inside.mlp.fc2]
    assert [operation.module for operation in block.operations] == order
    modules = [operation.module for operation in anatomy.operations]
    assert modules[:2] == list(anatomy.model.stem)
    assert modules[6:12] == [*stages[1].downsample, *order]
    assert modules[-1] is anatomy.model.head.norm
    assert [linear.weight.shape for linear in block.linears(("q", "v"))] == [(48, 12), (12, 48)]
    assert block.linears(("q", "fc1")) == (block.mlp.inputs[0],)
    assert block.named_branches(("attention", "mlp")) == (block.mlp,)
    for refuse in (lambda: block.attention, lambda: block.named_branches(("attention",))):
        with pytest.raises(Unsupported, match="a ConvNeXtBlock has no attention"):
            refuse()
    block.mlp.add_serial(Twice())
    with pytest.raises(Unsupported, match="a ConvNeXtBlock has no attention"):  # not of its slotted subclass
        _ = block.attention


@pytest.mark.parametrize("family", ["convnext with two stem convolutions", "convnext normed before pooling"])
def test_other_stems_and_heads_of_a_convnext(family: str) -> None:
    anatomy = small(family)
    modules = [operation.module for operation in anatomy.operations]
    stem = [module for module in anatomy.model.stem if hasattr(module, "weight")]
    assert (modules[: len(stem)], len(stem)) == (stem, 3 if "two" in family else 2)
    assert modules[-1] is (anatomy.model.norm_pre if "before" in family else anatomy.model.head.norm)


def test_the_final_norm_is_the_one_that_is_there() -> None:
    anatomy = small("mean of patches")
    assert isinstance(anatomy.model.norm, nn.Identity)
    assert anatomy.norm.module is anatomy.model.fc_norm
    bare = anatomy.pooled(images_for(anatomy))
    anatomy.add_after_blocks(Add(0.0))  # the patches' mean must not be reached by way of the norm
    assert torch.equal(anatomy.pooled(images_for(anatomy)), bare)
    assert module_slots(anatomy.model.norm)["before"][0](torch.zeros(1)) == 0


@pytest.mark.parametrize("family", ["swin", "padded swin", "convnext", "convnext of convolutions"])
def test_slots_of_a_block_see_maps_with_channels_last(family: str) -> None:
    """Every slot with a factor of its own, against the block's formula in the library's own parts."""
    anatomy, twin = small(family), small(family)
    index = 2
    block, bare = anatomy.blocks[index], twin.blocks[index].module
    convnext = "convnext" in family
    shape = (2, block.width, 5, 5) if convnext else (2, *bare.input_resolution, block.width)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    seen = []
    for branch in block.branches:
        branch.add_serial(Scaled(2.0))
        branch.add_parallel(Scaled(0.3))
        branch.add_parallel_norm(Scaled(0.7))
        branch.add_after_add(Scaled(1.5))
        branch.add_after_norm(Scaled(1.1))
        for slot in anatomy.model.modules():
            if isinstance(slot, Scaled):
                slot.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))

    def residual(x: Tensor, normed: Tensor, y: Tensor) -> Tensor:
        return 1.5 * (x + 2 * y + 0.3 * x + 0.7 * normed)

    with torch.no_grad():
        if convnext:
            mixed = bare.conv_dw(x)
            normed = 1.1 * (bare.norm(mixed) if bare.use_conv_mlp else bare.norm(mixed.permute(0, 2, 3, 1)))
            y = bare.mlp(normed)
            if bare.use_conv_mlp:
                normed, y = normed.permute(0, 2, 3, 1), y.permute(0, 2, 3, 1)
            expected = residual(x.permute(0, 2, 3, 1), normed, bare.gamma * y).permute(0, 3, 1, 2)
        else:
            normed = 1.1 * bare.norm1(x)
            expected = residual(x, normed, bare._attn(normed))
            normed = 1.1 * bare.norm2(expected)
            expected = residual(expected, normed, bare.mlp(normed))
        torch.testing.assert_close(block.module(x), expected, rtol=1e-4, atol=1e-5)
    assert set(seen) == {block.width}


@pytest.mark.parametrize("family", ["convnext", "convnext of convolutions"])
def test_a_delta_on_a_pointwise_convolution_is_one_on_a_linear_layer(family: str) -> None:
    anatomy = small(family)
    fc1 = anatomy.blocks[2].mlp.inputs[0]
    doubled = small(family)
    doubled.blocks[2].mlp.inputs[0].module.weight.data.mul_(2)
    expected = doubled.pooled(images_for(anatomy))
    fc1.add_delta(Double())
    torch.testing.assert_close(anatomy.pooled(images_for(anatomy)), expected, rtol=1e-4, atol=1e-5)
    anatomy.merge()
    torch.testing.assert_close(fc1.module.weight, doubled.blocks[2].mlp.inputs[0].module.weight)
    with pytest.raises(Unsupported, match="linear layer, not Conv2d"):
        anatomy.blocks[0].mlp.mixing.add_delta(Double())


class ShiftBefore(Insert):
    """``x + 1`` on what a branch's linear maps read."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1

    def check_foldable(self, host: object) -> None:
        host.check_input_shift()

    def fold_into(self, host: object) -> None:
        for linear in host.inputs:
            linear.shift_output_(linear.weight.sum(dim=1))


@pytest.mark.parametrize("family", ["swin", "padded swin"])
def test_a_shift_in_front_of_padded_windows_is_not_folded(family: str) -> None:
    """40 pixels are 10 x 10 tokens: windows of 4 are filled up with zeros, behind the norm and the shift."""
    anatomy = small(family)
    branch = anatomy.blocks[0].attention
    branch.add_after_norm(ShiftBefore())
    with torch.no_grad():
        before = anatomy.pooled(images_for(anatomy))
        assert anatomy.mergeable == (family == "swin")
        if not anatomy.mergeable:
            with pytest.raises(NotMergeable, match="padded windows"):
                anatomy.merge()
            assert torch.equal(anatomy.pooled(images_for(anatomy)), before)
            branch.pads = False  # and this is why
            anatomy.merge()
            assert (anatomy.pooled(images_for(anatomy)) - before).abs().max() > 1e-3
        else:
            anatomy.merge()
            torch.testing.assert_close(anatomy.pooled(images_for(anatomy)), before, rtol=1e-4, atol=1e-5)


def test_a_swin_that_takes_any_size_may_pad() -> None:
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, dynamic_img_size=True, **SWIN)
    assert all(block.attention.pads for block in timm_anatomy("swin", model, model.pretrained_cfg).blocks)


def test_a_shift_without_a_bias_is_refused_before_anything_changes() -> None:
    """test_vit4 has RMSNorms, which have no bias."""
    anatomy = build("test_vit4")
    anatomy.blocks[0].attention.q.add_delta(Double())
    anatomy.blocks[0].attention.norm.add_after(Shift())
    weight = anatomy.blocks[0].attention.q.weight.clone()
    with pytest.raises(NotMergeable, match="RmsNorm that has no bias"):
        anatomy.merge()
    assert torch.equal(anatomy.blocks[0].attention.q.weight, weight)


class Shift(Insert):
    """``y + 1``."""

    def forward(self, y: Tensor) -> Tensor:
        return y + 1

    def check_foldable(self, host: object) -> None:
        host.check_shift()

    def fold_into(self, host: object) -> None:
        host.shift_output_(torch.ones(host.out_features))


@pytest.mark.parametrize("name", ["swinv2_tiny_window8_256", "test_efficientnet"])
def test_models_whose_parts_are_not_known(name: str) -> None:
    with torch.device("meta"):
        anatomy = find_backbone(name).build(pretrained=False)
    with pytest.raises(Unsupported, match="nor others whose parts are known"):
        _ = anatomy.operations
