"""Patch tokens on their grid; blocks of one branch; a class token that does not come first."""

from __future__ import annotations

import contextlib
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from peftmark import METHODS, Anatomy, adapt
from peftmark.backbones import Affine, Block, Branch, Pixels, find_backbone
from peftmark.backbones.anatomy.prefix import untouched_prefix
from peftmark.backbones.anatomy.segments import run_segments
from peftmark.benchmark.support import FAMILIES
from peftmark.errors import Unsupported
from peftmark.methods import make_method, make_model
from peftmark.tasks import Classification, Objective

BY_NAME = {family.name: family for family in FAMILIES}
GRIDS = {
    "ViT": (4, 4, 48),
    "DINOv2": (4, 4, 48),
    "SigLIP": (4, 4, 48),
    "CLIP ViT": (5, 5, 128),
    "Swin": (2, 2, 96),
    "ConvNeXt": (2, 2, 48),
}


def images(anatomy: Anatomy, n: int = 2) -> Tensor:
    return torch.randn(n, *anatomy.input.shape, generator=torch.Generator().manual_seed(0))


def by_hand(name: str, anatomy: Anatomy, x: Tensor) -> Tensor:
    """As the library's own forward gives them."""
    model = cast(Any, anatomy.model)
    if name == "CLIP ViT":
        every = model.ln_post(model.transformer(model._embeds(x)))
        return every[:, 1:].unflatten(1, (5, 5))
    features = model.forward_features(x)
    if name == "ConvNeXt":
        return model.head.norm(features).permute(0, 2, 3, 1)
    return features if name == "Swin" else features[:, model.num_prefix_tokens :].unflatten(1, (4, 4))


@pytest.mark.parametrize("name", GRIDS)
def test_tokens_are_the_final_normed_patches_on_their_grid(name: str) -> None:
    anatomy = BY_NAME[name].anatomy()
    anatomy.model.eval()
    x = images(anatomy)
    tokens = anatomy.tokens(x)
    assert tokens.shape == (2, *GRIDS[name])
    assert anatomy.output_width("tokens") == GRIDS[name][2]
    torch.testing.assert_close(tokens, by_hand(name, anatomy, x), rtol=0, atol=1e-6)
    assert torch.equal(run_segments(anatomy.segments("tokens"), x), tokens)


def test_without_known_parts_there_are_none() -> None:
    anatomy = BY_NAME["ResNet"].anatomy()
    with pytest.raises(Unsupported, match="has no patch tokens whose place is known"):
        anatomy.tokens(images(anatomy))


@pytest.mark.parametrize("name", ["ViT", "DINOv2", "CLIP ViT"])
def test_prompts_are_not_among_them(name: str) -> None:
    bare, prompted = BY_NAME[name].anatomy(), BY_NAME[name].anatomy()
    make_method("vpt_deep").adapt(prompted)
    x = images(bare)
    for anatomy in (bare, prompted):
        anatomy.model.eval()
    assert prompted.tokens(x).shape == bare.tokens(x).shape
    assert not torch.allclose(prompted.tokens(x), bare.tokens(x), atol=1e-4)  # they have attended to them
    for name_of, parameter in prompted.model.named_parameters():
        if "prompt" in name_of:
            nn.init.constant_(parameter, 1e4)  # an L2-normed token would show
    assert bool(prompted.tokens(x).isfinite().all())


class PatchLabels(Classification):
    """A label for each patch: targets (N, rows, columns)."""

    output = "tokens"

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        return super().loss(outputs.flatten(0, 2), targets.flatten())


@pytest.mark.parametrize("method", ["linear", "lora", "vpt_shallow", "adaptformer"])
def test_a_head_on_every_patch(method: str) -> None:
    """An objective that reads tokens, on a model that `adapt` makes: outputs, loss, gradients."""
    objective: Objective = PatchLabels(3)
    model = adapt("embedded/vit", method, objective=objective, pretrained=False)
    x = images(model.anatomy)
    outputs = model(x)
    assert outputs.shape == (2, 5, 5, 3)
    assert model.trainable_parameters() - model.trainable_parameters(include_head=False) == 128 * 3 + 3
    objective.loss(outputs, torch.arange(50).view(2, 5, 5) % 3).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_the_untouched_prefix_of_tokens_is_that_of_what_is_pooled() -> None:
    bare = find_backbone("embedded/vit").build(pretrained=False)
    for method, expected in (("linear", 8), ("bitfit", 0)):
        torch.manual_seed(0)
        anatomy = find_backbone("embedded/vit").build(pretrained=False)
        anatomy.model.load_state_dict(bare.model.state_dict())
        make_method(method).adapt(anatomy)
        assert untouched_prefix(anatomy, bare, "tokens", training=True) == expected


class Mixer(nn.Module):
    """A residual block of one branch that is neither attention nor an MLP: ``x + out(in(norm(x)))``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.inside, self.out = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(self.inside(self.norm(x)))


class MixerBranch(Branch):
    @property
    def projections(self) -> dict[str, Affine]:
        return {"in_proj": self.inputs[0], "out_proj": self.output}


class MixerAnatomy(Anatomy):
    """Nine patches with a class token in the middle, as in Vision Mamba."""

    def stream(self, x: Tensor) -> Tensor:
        patches = x.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        x = torch.cat((patches[:, :4], patches.new_ones(len(x), 1, 12), patches[:, 4:]), dim=1)
        return self.model(x)

    def pooled(self, images: Tensor) -> Tensor:
        assert self.class_token is not None
        return self.stream(images)[:, self.class_token]

    def tokens(self, images: Tensor) -> Tensor:
        return self.patches(self.stream(images))


def mixers() -> MixerAnatomy:
    torch.manual_seed(0)
    model = nn.Sequential(Mixer(12), Mixer(12))
    anatomy = MixerAnatomy(
        "toy/mixer", model, model, 12, Pixels((6, 6), (0.5,) * 3, (0.5,) * 3), [], grid=(3, 3), class_token=4
    )
    blocks = []
    for module in cast(list[Mixer], list(model)):
        block = Block(module, None, log=anatomy.log)
        norm, inside, out = (Affine(each, log=anatomy.log) for each in (module.norm, module.inside, module.out))
        block.branches = (MixerBranch(name="mixer", block=block, norm=norm, inputs=(inside,), output=out),)
        blocks.append(block)
    anatomy.token_blocks = tuple(blocks)
    return anatomy


def test_a_class_token_in_the_middle_is_read_and_left_out_by_its_index() -> None:
    anatomy = mixers()
    x = images(anatomy)
    whole = anatomy.stream(x)
    assert torch.equal(anatomy.pooled(x), whole[:, 4])
    assert torch.equal(anatomy.tokens(x), torch.cat((whole[:, :4], whole[:, 5:]), 1).view(2, 3, 3, 12))


def test_a_block_of_one_branch_has_what_it_has() -> None:
    anatomy = mixers()
    block = anatomy.blocks[0]
    assert (anatomy.width, block.width, list(block.projections)) == (12, 12, ["in_proj", "out_proj"])
    assert block.linears(("q", "v")) == tuple(block.projections.values())  # the stand-ins
    with pytest.raises(Unsupported, match="a Mixer has no attention"):
        _ = block.attention
    with pytest.raises(Unsupported, match="a Mixer has no MLP"):
        _ = block.mlp


ON_MIXERS = ("linear", "full", "bitfit", "layernorm", "lora", "dora", "dylora", "vera")


@pytest.mark.parametrize("method", ON_MIXERS)
def test_methods_that_need_no_more_work_on_it(method: str) -> None:
    made = make_method(method)
    model = make_model(mixers(), made, Classification(2)).train()
    x = images(model.anatomy)
    with torch.no_grad():
        if METHODS[method].identity_at_start:
            torch.testing.assert_close(model.features(x), mixers().pooled(x))
    Classification(2).loss(model(x), torch.tensor([0, 1])).backward()
    reached = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert any(name.startswith("backbone") for name in reached) == (method != "linear")


@pytest.mark.parametrize(
    "method", [name for name in METHODS.expand("*") if "image" in METHODS.entry(name).metadata["tracks"]]
)
def test_every_other_method_works_or_is_unsupported(method: str) -> None:
    x = images(mixers())
    with contextlib.suppress(Unsupported):
        model = make_model(mixers(), make_method(method), Classification(2))
        model.method.prepare(model, [(x, torch.tensor([0, 1]))])
        assert model(x).shape == (2, 2)
