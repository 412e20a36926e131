"""Anatomies: the same numbers as the library's own model, every part where it should be, slots that leave no trace."""

from __future__ import annotations

import copy

import open_clip
import pytest
import timm
import torch
from inserts import Add, Double, Twice, build
from open_clip.model import set_model_preprocess_cfg
from torch import Tensor, nn

from peftmark.backbones import Affine, Insert, find_backbone
from peftmark.backbones.anatomy.slots import module_slots, remove_slots, row_slots, twin
from peftmark.backbones.open_clip.builder import ExplicitAttention, clip_anatomy, make_explicit
from peftmark.backbones.timm.builder import timm_anatomy
from peftmark.errors import NotMergeable, Unsupported


class ZeroPrefix(Insert):
    """Three keys and values, all zero."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        zeros = torch.zeros(1, 3, x.shape[-1])
        return zeros, zeros


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "test_vit", "test_resnet", "test_convnext"]
)
def test_pooled_features_are_timm_s_own(name: str) -> None:
    anatomy = build(name)
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=0)
    images = torch.randn(2, 3, *anatomy.image_size)
    with torch.no_grad():
        assert torch.equal(anatomy.pooled(images), model.load_state_dict(anatomy.model.state_dict()) and model(images))
    assert anatomy.pooled(images).shape == (2, anatomy.feature_dim)


@pytest.mark.parametrize(
    ("name", "prefix", "grid"), [("vit_tiny_patch16_224", 1, 14), ("vit_small_patch14_reg4_dinov2", 5, 37)]
)
def test_parts_of_a_vision_transformer(name: str, prefix: int, grid: int) -> None:
    anatomy = build(name)
    vit = anatomy.model
    assert (anatomy.prefix_tokens, anatomy.grid, len(anatomy.blocks)) == (prefix, (grid, grid), len(vit.blocks))
    attention, width = anatomy.blocks[0].attention, anatomy.width
    fused = vit.blocks[0].attn.qkv.weight
    assert torch.equal(torch.cat([attention.q.weight, attention.k.weight, attention.v.weight]), fused)
    assert attention.q.weight.shape == (width, width)
    assert attention.output.module is vit.blocks[0].attn.proj
    assert [part.module for part in anatomy.blocks[1].mlp.projections.values()] == [
        vit.blocks[1].mlp.fc1,
        vit.blocks[1].mlp.fc2,
    ]
    assert not any(parameter.requires_grad for parameter in anatomy.root.parameters())


def test_rewritten_attention_equals_the_packed_one() -> None:
    torch.manual_seed(0)
    packed = nn.MultiheadAttention(32, 4, batch_first=True)
    nn.init.normal_(packed.in_proj_bias)
    x, mask = torch.randn(2, 7, 32), torch.full((7, 7), float("-inf")).triu(1)
    explicit = ExplicitAttention(packed)
    for attn_mask in (None, mask):
        expected, _ = packed(x, x, x, need_weights=False, attn_mask=attn_mask)
        torch.testing.assert_close(explicit(x, attn_mask), expected)
    assert sum(p.numel() for p in explicit.parameters()) == sum(p.numel() for p in packed.parameters())


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16-SigLIP"])
def test_other_towers_have_features(name: str) -> None:
    """A ResNet tower, with CLIP's own text tower, and a SigLIP, whose image tower timm made."""
    anatomy = build(f"open_clip/{name}")
    images = torch.randn(1, 3, 224, 224)
    anatomy.root.eval()
    with torch.no_grad():
        features = anatomy.pooled(images)
        assert torch.equal(features, anatomy.root.encode_image(images))
    assert features.shape == (1, anatomy.feature_dim)
    assert anatomy.text is not None
    if name == "RN50":
        with pytest.raises(Unsupported, match="no transformer blocks"):
            _ = anatomy.blocks
        return
    trunk = anatomy.model.trunk
    assert (anatomy.prefix_tokens, anatomy.grid, anatomy.width) == (0, (14, 14), 768)
    assert [block.module for block in anatomy.blocks] == list(trunk.blocks)
    assert (anatomy.stem.module, anatomy.norm.module) == (trunk.patch_embed.proj, trunk.norm)


@pytest.mark.parametrize("name", ["ViT-B-32"])
def test_clip_with_and_without_rewriting(name: str) -> None:
    """Both towers' outputs stay what open_clip computes."""
    torch.manual_seed(0)
    reference = open_clip.create_model(name, pretrained=None).eval()
    images, ids = torch.randn(2, 3, 224, 224), open_clip.get_tokenizer(name)(["a cat", "a red dog"])
    with torch.no_grad():
        expected = reference.encode_image(images), reference.encode_text(ids)
        explicit = copy.deepcopy(reference)
        make_explicit(explicit.visual.transformer)
        make_explicit(explicit.transformer)
        torch.testing.assert_close(explicit.encode_image(images), expected[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(explicit.encode_text(ids), expected[1], rtol=1e-4, atol=1e-5)


class Seen(Insert):
    """Takes down the shape of what passes."""

    def forward(self, x: Tensor) -> Tensor:
        self.shape = tuple(x.shape)
        return x


@pytest.mark.parametrize(
    "settings", [{}, {"final_ln_after_pool": True}, {"final_ln_after_pool": True, "pool_type": "avg"}]
)
def test_the_stream_leaves_clip_s_blocks_as_tokens_wherever_the_norm_is(settings: dict[str, object]) -> None:
    """CLIPA norms what was pooled, which is one vector an image; prompts have to leave before."""
    vision = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16, **settings}
    text = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
    model = open_clip.CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text)
    set_model_preprocess_cfg(model, {"size": 16, "mean": (0.5,) * 3, "std": (0.5,) * 3})
    model.eval()
    images = torch.randn(3, 3, 16, 16)
    expected = model.encode_image(images)
    anatomy = clip_anatomy("small", model, 24, open_clip.get_tokenizer("ViT-B-32"))
    before, after = Seen(), Seen()
    anatomy.add_before_blocks(before)
    anatomy.add_after_blocks(after)
    torch.testing.assert_close(anatomy.projected(images), expected, rtol=1e-4, atol=1e-5)
    assert before.shape == after.shape == (3, 1 + 4, 32)


def test_text_tower_is_clip_s_own() -> None:
    anatomy = build("embedded/clip")
    text = anatomy.text_tower()
    assert not any(parameter.requires_grad for parameter in anatomy.root.parameters())  # the rewritten ones too
    ids = text.tokenize(["a red apple", "dog"])
    with torch.no_grad():
        torch.testing.assert_close(text.encode(text.embed(ids), ids), anatomy.root.encode_text(ids))
        images = torch.randn(2, 3, 40, 40)
        assert torch.equal(anatomy.projected(images), anatomy.root.encode_image(images))
        tower = anatomy.model
        torch.testing.assert_close(anatomy.pooled(images) @ tower.proj, anatomy.projected(images))
    own = {name for name, _ in text.named_parameters()} | {f"visual.{name}" for name, _ in anatomy.named_parameters()}
    assert {name for name, _ in anatomy.root.named_parameters()} - own == {"logit_scale"}


def test_embedded_vit_is_the_clip_s_image_tower() -> None:
    from peftmark.backbones.embedded.builder import vit_state_dict

    torch.manual_seed(0)
    clip = find_backbone("embedded/clip").build(pretrained=False)
    # fresh norms and zero biases would hide a swapped name
    for parameter in clip.model.parameters():
        nn.init.normal_(parameter, std=0.1)
    vit = find_backbone("embedded/vit").build(pretrained=False)
    packed = open_clip_names(clip.model.state_dict())
    vit.model.load_state_dict(vit_state_dict(packed))
    images = torch.randn(3, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(vit.pooled(images), clip.pooled(images), rtol=1e-4, atol=1e-5)


def open_clip_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A rewritten tower's state dict with its q, k and v packed again, as it lies on disk."""
    packed: dict[str, Tensor] = {}
    for name, value in state.items():
        if ".attn.q_proj." in name:
            parts = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            packed[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
        elif ".attn.k_proj." not in name and ".attn.v_proj." not in name:
            packed[name] = value
    return packed


def test_slots_run_in_their_places_and_leave_no_trace() -> None:
    torch.manual_seed(0)
    linear, norm = nn.Linear(4, 6), nn.LayerNorm(6)
    model = nn.Sequential(linear, norm)
    x = torch.randn(3, 4)
    bare, keys = model(x), list(model.state_dict())
    row_slots(linear, (2, 4))["delta"].append(Double())
    module_slots(linear)["after"].append(Add(1.0))
    module_slots(norm)["before"].append(Add(5.0))
    y = nn.functional.linear(x, linear.weight, linear.bias)
    y[:, 2:4] += x @ linear.weight[2:4].T
    torch.testing.assert_close(model(x), nn.functional.layer_norm(y + 6, (6,)))
    assert isinstance(linear, nn.Linear)
    remove_slots(model)
    assert torch.equal(model(x), bare)
    assert (type(linear), type(norm), list(model.state_dict())) == (nn.Linear, nn.LayerNorm, keys)
    assert "row_ranges" not in linear.__dict__


def test_deltas_may_share_rows_but_not_overlap() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4, 6)
    x = torch.randn(3, 4)
    for rows in ((4, 6), (0, 2), (0, 2)):
        row_slots(linear, rows)["delta"].append(Double())
    expected = nn.functional.linear(x, linear.weight, linear.bias)
    expected[:, :2] += 2 * (x @ linear.weight[:2].T)
    expected[:, 4:] += x @ linear.weight[4:].T
    torch.testing.assert_close(linear(x), expected)
    # the part between has a number, too: names do not depend on which are used
    assert [name for name, module in linear.named_modules() if isinstance(module, Double)] == [
        "slots.rows.0.delta.0", "slots.rows.0.delta.1", "slots.rows.2.delta.0",
    ]  # fmt: skip
    for rows in ((1, 3), (0, 4)):
        with pytest.raises(ValueError, match="none of the equal parts of 6"):
            row_slots(linear, rows)
    for rows in ((0, 3), (0, 6)):
        with pytest.raises(ValueError, match="overlap"):
            row_slots(linear, rows)


def test_a_merge_that_cannot_be_done_changes_nothing() -> None:
    anatomy = build("test_vit")
    block = anatomy.blocks[0]
    block.attention.q.add_delta(Double())
    block.mlp.add_serial(Add(1.0))
    images = torch.randn(1, 3, *anatomy.image_size)
    before = anatomy.pooled(images)
    assert not anatomy.mergeable
    with pytest.raises(NotMergeable, match="Add"):
        anatomy.merge()
    assert torch.equal(anatomy.pooled(images), before)


def test_a_delta_on_one_projection_of_a_fused_layer_merges_into_its_rows() -> None:
    anatomy = build("test_vit")
    value = anatomy.blocks[0].attention.v
    before, others = value.weight.clone(), anatomy.blocks[0].attention.q.weight.clone()
    value.add_delta(Double())
    anatomy.merge()
    torch.testing.assert_close(value.weight, 2 * before)
    assert torch.equal(anatomy.blocks[0].attention.q.weight, others)


@pytest.mark.parametrize("bias", [True, False])
def test_a_fused_projection_is_split_and_fused_again(bias: bool) -> None:
    torch.manual_seed(0)
    vit = timm.create_model("test_vit", num_classes=0, qkv_bias=bias).eval()
    anatomy = timm_anatomy("test_vit", vit, vit.pretrained_cfg)
    images = torch.randn(2, 3, *anatomy.image_size)
    before, names = copy.deepcopy(vit), [name for name, _ in vit.named_modules()]
    expected = vit(images)
    attention = anatomy.blocks[1].attention
    random = torch.get_rng_state()
    for block in anatomy.blocks:
        block.attention.split()
        block.attention.split()  # once is enough
    assert torch.equal(torch.get_rng_state(), random)
    torch.testing.assert_close(vit(images), expected, rtol=1e-5, atol=1e-6)
    fused = before.blocks[1].attn.qkv
    views = (attention.q, attention.k, attention.v)
    for part, module, weight in zip("qkv", views, fused.weight.chunk(3), strict=True):
        assert module.module is vit.blocks[1].attn.qkv.get_submodule(part)
        assert module.rows is None
        assert torch.equal(module.weight, weight)
        assert (module.bias is None) != bias
        assert not module.weight.requires_grad
    assert attention.inputs == (attention.q, attention.k, attention.v)
    attention.k.add_delta(Double())
    changed = vit(images)
    assert not torch.allclose(changed, expected, rtol=1e-4)
    anatomy.merge()
    torch.testing.assert_close(vit(images), changed, rtol=1e-4, atol=1e-5)
    assert [name for name, _ in vit.named_modules()] == names
    assert {type(block.attn.qkv) for block in vit.blocks} == {nn.Linear}
    width = fused.in_features
    assert torch.equal(vit.blocks[1].attn.qkv.weight[:width], fused.weight[:width])
    assert not torch.equal(vit.blocks[1].attn.qkv.weight[width : 2 * width], fused.weight[width : 2 * width])
    assert attention.k.module is vit.blocks[1].attn.qkv
    assert attention.k.rows == (width, 2 * width)


def test_splitting_what_is_apart_changes_nothing() -> None:
    anatomy = find_backbone("embedded/clip").build(pretrained=False)
    before = [name for name, _ in anatomy.root.named_modules()]
    for block in anatomy.blocks:
        block.attention.split()
        block.attention.fuse()
    assert [name for name, _ in anatomy.root.named_modules()] == before
    assert anatomy.blocks[0].attention.q.module is anatomy.model.transformer.resblocks[0].attn.q_proj


class Negated(Insert):
    """Runs instead of a layer, which it calls and negates."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "inner", twin(module))

    def forward(self, x: Tensor) -> Tensor:
        return -self.inner(x)

    def fold_into(self, host: Affine) -> None:
        for parameter in self.inner.parameters():
            parameter.neg_()


def test_a_module_is_replaced_and_keeps_its_tensors() -> None:
    """Whatever happens to the module's parameters happens to the twin's: they are the same."""
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 4), torch.randn(3, 4)
    names, log = list(layer.state_dict()), []
    part = Affine(layer, log=log)
    part.replace(Negated(layer))
    expected = -nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.equal(layer(x), expected)
    assert list(layer.state_dict()) == names
    with pytest.raises(ValueError, match="only a whole module in which nothing is inserted"):
        part.replace(Negated(layer))
    with pytest.raises(ValueError, match="only a whole module"):
        Affine(nn.Linear(4, 4), rows=(0, 2), log=log).replace(Negated(layer))
    second = copy.deepcopy(layer)
    layer.load_state_dict({name: value * 2 for name, value in layer.state_dict().items()})
    assert torch.equal(layer(x), 2 * expected)
    assert torch.equal(second(x), expected)
    second.to(torch.float64)
    torch.testing.assert_close(second(x.double()), expected.double())
    second.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.float64))
    assert torch.equal(second(x.double()), -second.bias.expand(3, 4))
    assert len(log) == 1


def test_parts_that_are_not_there_are_unsupported() -> None:
    anatomy = build("test_resnet")
    for part in ("blocks", "stem", "norm"):
        with pytest.raises(Unsupported, match="test_resnet has no"):
            getattr(anatomy, part)
    with pytest.raises(Unsupported, match="no text tower"):
        anatomy.text_tower()
    with pytest.raises(Unsupported, match="no parameter"):
        anatomy.train(lambda name, parameter: False)


@pytest.mark.parametrize("name", ["test_vit", "embedded/clip"])
def test_queries_and_extra_keys_inside_attention(name: str) -> None:
    """Queries times two are a query projection times two; a prefix of value zero takes its share of the softmax."""
    doubled, weights, prefixed = (build(name) for _ in range(3))
    for anatomy in (doubled, weights, prefixed):
        query = anatomy.blocks[0].attention.q
        nn.init.normal_(query.bias, std=0.1, generator=torch.Generator().manual_seed(1))
    doubled.blocks[0].attention.add_query(Twice())
    weights.blocks[0].attention.q.scale_output_(torch.tensor(2.0))
    images = torch.randn(2, 3, *doubled.image_size)
    torch.testing.assert_close(doubled.pooled(images), weights.pooled(images), rtol=1e-4, atol=1e-5)

    attention = prefixed.blocks[0].attention
    x = torch.randn(2, 7, prefixed.width)
    for projection in (attention.q, attention.k):  # all scores are zero: the mean over keys
        nn.init.zeros_(projection.weight)
        projection.bias.zero_()
    bare = attention.module(x) - attention.output.bias
    attention.add_prefix(ZeroPrefix())
    torch.testing.assert_close(attention.module(x) - attention.output.bias, bare * 7 / 10, rtol=1e-4, atol=1e-5)


def test_a_shared_module_belongs_to_its_owner() -> None:
    common = nn.Linear(2, 2)
    owner, user = Insert(), Insert()
    owner.share("common", common, owner=True)
    user.share("common", common, owner=False)
    assert owner.common is user.common is common
    assert (len(list(owner.parameters())), len(list(user.parameters()))) == (2, 0)
    twins = copy.deepcopy(nn.ModuleList([owner, user]))
    assert twins[0].common is twins[1].common is not common
