"""The table of methods and backbone families: it is what trying gives, and every tick in it keeps the invariants."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from invariants import CLASS_NAMES, CONFIGS, FRAMES, Case, labels

# the invariants again, on the cases of this file
from test_invariants import (  # noqa: F401
    test_adapter_alone_restores_the_model,
    test_every_trainable_tensor_gets_a_gradient,
    test_frozen_tensors_stay_bit_identical,
    test_merge_keeps_the_logits_and_the_backbone_s_structure,
    test_starts_as_the_bare_backbone,
)

from peftmark import METHODS
from peftmark.adapting import adapt
from peftmark.backbones import Affine, Anatomy
from peftmark.benchmark.support import FAMILIES, PAGE, SMALL_IMAGES, SMALL_VIT, Family, page
from peftmark.errors import NotMergeable, PeftmarkError
from peftmark.methods import AdaptedModel
from peftmark.methods.additive.convpass import ConvBypass
from peftmark.methods.additive.ssf import ScaleShift


@dataclass(frozen=True)
class FamilyCase(Case):
    """One method on a small model of a backbone family."""

    family: Family

    def anatomy(self) -> Anatomy:
        return self.family.anatomy()

    def model(self, anatomy: Anatomy | None = None) -> AdaptedModel:
        torch.manual_seed(1)
        frames = FRAMES if self.track == "video" else None
        # on so small a model the default share would not even pay for the head
        keep = {"keep": 0.1} if hasattr(METHODS[self.method], "keep") else {}
        return adapt(
            anatomy or self.anatomy(),
            self.method,
            num_classes=len(CLASS_NAMES),
            num_frames=frames,
            batches=[(self.images(), labels())],
            **keep,
            **CONFIGS.get(self.method, {}),
        )

    def images(self, n: int = 6) -> torch.Tensor:
        shape = (n, *[FRAMES] * (self.track == "video"), 3, *self.anatomy().image_size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def ticks(column: str) -> list[str]:
    """Methods that have a tick in this column of the committed table."""
    rows = [row.split(" | ") for row in PAGE.read_text().splitlines() if row.startswith("| ")]
    place = [cell.strip("| ") for cell in rows[0]].index(column)
    return [row[0].strip("| `") for row in rows[1:] if row[place].strip("| ") == "✓"]


OTHERS = {family.name: family for family in FAMILIES if family.name not in ("ViT", "CLIP ViT")}
"""Those two are the embedded backbones of the registry's own invariants."""
SWIN = OTHERS["Swin"]
VARIANTS = (
    # 10 x 10, 5 x 5 and 3 x 3 tokens in windows of 4 x 4: padded, and masked where they are shifted
    ("Swin", Family("Swin, padded", "", SWIN.architecture, {**SWIN.sizes, "img_size": 40})),
    (
        "ConvNeXt",
        Family(
            "ConvNeXt V2, 1x1 convolutions",
            "",
            "convnextv2_tiny",
            {**SMALL_IMAGES, "depths": (1, 1, 1, 1), "dims": (16, 24, 32, 32), "conv_mlp": True},
        ),
    ),
    # the mean of the patches is normed instead of the patches
    ("ViT", Family("ViT, mean", "", "vit_base_patch16_224", {**SMALL_VIT, "global_pool": "avg"})),
)
COLUMNS = (*OTHERS.items(), *VARIANTS)
CASES = [
    FamilyCase(method, METHODS.entry(method).metadata["tracks"][0], family)
    for column, family in COLUMNS
    for method in ticks(column)
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case.family.name}-{case.method}".replace(" ", "_"))
def case(request: pytest.FixtureRequest) -> FamilyCase:
    return request.param


def test_the_committed_table_is_what_trying_gives() -> None:
    assert PAGE.read_text() == page(), "write it again: python -m peftmark.benchmark.support"


def model_of(family: str, method: str, **config: object) -> AdaptedModel:
    [found] = (small for _, small in COLUMNS if small.name == family)
    return adapt(found.anatomy(), method, num_classes=3, **config).eval()


@pytest.mark.parametrize("method", ["vpt_shallow", "vpt_deep", "gated_vpt"])
@pytest.mark.parametrize(
    ("family", "tokens", "width"), [("DINOv2", 1 + 4 + 16, 48), ("SigLIP", 16, 48), ("ViT, mean", 1 + 16, 48)]
)
def test_prompts_stand_behind_the_prefix_and_leave_before_pooling(
    family: str, tokens: int, width: int, method: str
) -> None:
    """Patches that are pooled by attention or by their mean are the backbone's own, whatever stands before them."""
    model = model_of(family, method, prompt_length=3)
    blocks, inside = model.backbone.blocks, []
    for block in blocks:
        block.register_forward_hook(lambda _, inputs, x: inside.append(x))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = model.backbone.forward_features(images)
    assert features.shape == (2, tokens, width)
    assert {x.shape for x in inside} == {(2, tokens + 3, width)}
    prefix = model.backbone.num_prefix_tokens
    with torch.no_grad():
        entering = torch.zeros(2, tokens, width)
        expected = blocks[0].slots["before"][0](entering)
    assert not expected[:, :prefix].any()
    assert not expected[:, prefix + 3 :].any()
    assert expected[:, prefix : prefix + 3].any()


@pytest.mark.parametrize(
    ("family", "method"), [("Swin, padded", "convpass"), ("ConvNeXt V2, 1x1 convolutions", "dora")]
)
def test_other_families_compile(family: str, method: str) -> None:
    model = model_of(family, method)
    images = torch.randn(2, 3, *model.anatomy.image_size)
    torch._dynamo.reset()
    with torch.no_grad():
        expected = model(images)
        compiled = torch.compile(model, backend="aot_eager")(images)
    torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-5)


def test_units_of_a_swin_are_its_own() -> None:
    """The two heads of width 12 in the first stage, of 24 in the second, the four of 24 in the third."""
    anatomy = SWIN.anatomy()
    data = [(torch.randn(4, 3, 32, 32), torch.arange(4) % 3)]
    model = adapt(anatomy, "head_mask", num_classes=3, batches=data, keep=0.01)
    masks = {name: int(mask.sum()) for name, mask in anatomy.masks.items()}
    [stage] = {int(name.split(".")[1]) for name in masks}
    width, head = 24 * 2**stage, 12 if stage == 0 else 24
    counts = {"qkv.weight": 3 * head * width, "qkv.bias": 3 * head, "proj.weight": width * head}
    assert {name.split("attn.")[1]: count for name, count in masks.items()} == counts
    assert model.trainable_parameters(include_head=False) == 4 * head * width + 3 * head


def test_low_rank_updates_of_a_convnext_are_on_fc1_and_fc2() -> None:
    for method in ("lora", "dora", "dylora", "vera"):
        names = {n.split(".slots")[0] for n, p in model_of("ConvNeXt", method).named_parameters() if "slots" in n}
        assert {name.split(".")[-1] for name in names} == {"fc1", "fc2"}
        only = {n for n, p in model_of("ConvNeXt", method, targets=("q", "fc2")).named_parameters() if "slots" in n}
        assert all(".mlp.fc2.slots" in name for name in only)


def test_a_norm_that_trains_is_saved_with_its_statistics() -> None:
    model = model_of("ResNet", "bitfit")
    state = model.adapter_state_dict()
    assert {"backbone.bn1.running_mean", "backbone.bn1.running_var", "backbone.bn1.num_batches_tracked"} <= set(state)
    assert not any("running" in name for name in model_of("ResNet", "linear").adapter_state_dict())
    with pytest.raises(PeftmarkError, match=r"does not fit.*bn1.running_mean"):
        model.load_adapter_state_dict({n: v for n, v in state.items() if n != "backbone.bn1.running_mean"})


def test_convpass_on_a_map_is_convpass_on_its_tokens() -> None:
    torch.manual_seed(0)
    on_map = ConvBypass(6, 4, None, 0, 1.0, 0.0, "xavier")
    on_tokens = ConvBypass(6, 4, (3, 5), 2, 1.0, 0.0, "xavier")
    torch.nn.init.normal_(on_map.up.weight)
    on_tokens.load_state_dict(on_map.state_dict())
    x = torch.randn(2, 3, 5, 6)
    registers = torch.randn(2, 2, 6)
    got = on_tokens(torch.cat((registers, x.flatten(1, 2)), dim=1))
    torch.testing.assert_close(got[:, 2:].view(2, 3, 5, 6), on_map(x))
    # each token before the patches is a 1x1 image
    torch.testing.assert_close(got[:, 1], on_map(registers[:, 1].view(2, 1, 1, 6)).flatten(1))


@pytest.mark.parametrize("family", ["Swin", "ConvNeXt", "ConvNeXt V2, 1x1 convolutions"])
def test_the_peft_bridge_adapts_the_same_layers_as_lora(family: str) -> None:
    """Its LoRA with the same factors computes the same, and both fold into the backbone's own layers."""
    pytest.importorskip("peft")
    native, bridged = model_of(family, "lora", rank=4, alpha=4.0), model_of(family, "peft/lora", r=4, lora_alpha=4)
    own = [p for name, p in native.named_parameters() if p.requires_grad and "slots" in name]
    theirs = [p for name, p in bridged.named_parameters() if p.requires_grad and "slots" in name]
    torch.manual_seed(5)
    with torch.no_grad():
        for mine, other in zip(own, theirs, strict=True):
            other.copy_(mine.normal_(std=0.3).view_as(other))
        bridged.head.load_state_dict(native.head.state_dict())
        images = torch.randn(2, 3, *native.anatomy.image_size)
        expected = native(images)
        torch.testing.assert_close(bridged(images), expected, rtol=1e-4, atol=1e-5)
        for model in (native, bridged):
            model.merge()
            torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)
    names = [name for name, _ in native.backbone.named_parameters()]
    assert [name for name, _ in bridged.backbone.named_parameters()] == names


def test_ssf_on_norms_without_bias_cannot_be_merged() -> None:
    """test_vit4 has RMSNorms: nothing there takes a shift, and the model stays as it was."""
    torch.manual_seed(0)
    model = adapt("test_vit4", "ssf", num_classes=3, pretrained=False).eval()
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        expected = model(images)
        with pytest.raises(NotMergeable, match="RmsNorm that has no bias"):
            model.merge()
        assert torch.equal(model(images), expected)


def test_a_frozen_norm_with_something_behind_it_stays_frozen() -> None:
    anatomy = OTHERS["ResNet"].anatomy()
    Affine(anatomy.model.bn1, channels_first=True, log=anatomy.log).add_after(ScaleShift(32))
    model = adapt(anatomy, "linear", num_classes=3)
    assert any(parameter.requires_grad for parameter in anatomy.model.bn1.parameters())
    before = anatomy.model.bn1.running_mean.clone()
    model(torch.randn(4, 3, 64, 64))
    assert torch.equal(anatomy.model.bn1.running_mean, before)
