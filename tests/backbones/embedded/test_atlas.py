"""The embedded drawings, scenes, tokenizer and weights: whole, aligned, deterministic, and what their recipe says."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from peftmark.backbones.embedded.atlas import FOLDER, HELD_OUT_STYLE, SPRITE_SIZE, STYLES, Atlas, load_atlas
from peftmark.backbones.embedded.clip import IMAGE_MEAN, IMAGE_STD, load_clip, load_tokenizer, train_merges
from peftmark.backbones.embedded.scenes import backgrounds, compose, jitter
from peftmark.tools.build_atlas import family, match_by_name
from peftmark.tools.captioned_scenes import Sampler, caption_pool
from peftmark.tools.pretrain import (
    Recipe,
    class_embeddings,
    encode_short_text,
    evaluation_batches,
    learning_rate,
    sees_whole_images,
    zero_shot,
)


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return load_atlas()


@pytest.fixture(scope="module")
def recipe() -> dict:
    return json.loads((FOLDER / "recipe.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def names(atlas: Atlas) -> torch.Tensor:
    return class_embeddings(load_clip(), load_tokenizer(), list(atlas.names))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- atlas ------------------------------------------------------------------------------------------------------------


def test_every_table_of_the_atlas_has_a_row_an_emoji(atlas: Atlas) -> None:
    assert len(atlas) == 1591
    assert atlas.styles == STYLES
    assert atlas.sprites.shape == (5, len(atlas), SPRITE_SIZE, SPRITE_SIZE, 4)
    assert atlas.sprites.dtype == np.uint8
    assert atlas.present.shape == (5, len(atlas)) and atlas.held_out.shape == (len(atlas),)
    assert {len(column) for column in (atlas.names, atlas.hexcodes, atlas.tags, atlas.groups, atlas.subgroups)} == {
        len(atlas)
    }
    assert len(set(atlas.names)) == len(set(atlas.hexcodes)) == len(atlas)


def test_a_sprite_is_drawn_exactly_where_it_is_present(atlas: Atlas) -> None:
    drawn = atlas.sprites[..., 3].any(axis=(2, 3))
    assert np.array_equal(drawn, atlas.present)
    counts = dict(zip(atlas.styles, atlas.present.sum(1).tolist(), strict=True))
    assert counts == {"noto": 1591, "fluent": 1591, "emojione": 1068, "fxemoji": 663, "twemoji": 1591}
    assert atlas.present.all(0).sum() > 500


def test_styles_are_aligned(atlas: Atlas) -> None:
    """Coarsely, an emoji's picture in another style is nearly always closer to its own than to another emoji's."""
    rows = np.flatnonzero(atlas.present.all(0))
    coarse = atlas.sprites[:, rows].reshape(5, len(rows), 6, 8, 6, 8, 4).mean((3, 5)).reshape(5, len(rows), -1)
    shifted = np.roll(coarse[0], len(rows) // 3, axis=0)
    for style in range(1, 5):
        own = ((coarse[style] - coarse[0]) ** 2).sum(1)
        other = ((coarse[style] - shifted) ** 2).sum(1)
        assert (own < other).mean() > 0.85


def test_a_fifth_is_held_out_of_every_large_subgroup_and_families_stay_together(atlas: Atlas) -> None:
    assert atlas.held_out.mean() == pytest.approx(0.2, abs=0.01)
    shares, families = defaultdict(list), defaultdict(set)
    for subgroup, code, held_out in zip(atlas.subgroups, atlas.hexcodes, atlas.held_out, strict=True):
        shares[subgroup].append(held_out)
        families[subgroup, family(code)].add(bool(held_out))
    assert all(0.1 <= np.mean(share) <= 0.3 for share in shares.values() if len(share) >= 20)
    assert all(len(sides) == 1 for sides in families.values())


def test_the_atlas_is_read_once_and_cannot_be_written(atlas: Atlas) -> None:
    assert load_atlas() is atlas
    with pytest.raises(ValueError, match="read-only"):
        atlas.sprites[0, 0, 0, 0, 0] = 1


def test_matching_by_name_prefers_labels_and_gives_an_icon_once() -> None:
    roster = [{"label": "red apple", "hexcode": "1F34E"}, {"label": "apple", "hexcode": "X-1"}]
    assert match_by_name(["apple", "redapple", "bow"], roster, [{"1F34E": "apple", "X-1": ["bow"]}]) == {
        "1F34E": "redapple",
        "X-1": "apple",
    }


# --- scenes -----------------------------------------------------------------------------------------------------------


def test_compose_paints_pixels_where_it_is_told() -> None:
    """A sprite of 2 × 2 texels at its natural size falls on whole pixels, so every value is known."""
    sprite = torch.zeros(1, 1, 4, 2, 2)
    sprite[0, 0, 3] = torch.tensor([[1.0, 0.5], [0.0, 1.0]])
    sprite[0, 0, 0] = 1.0  # red
    background = torch.full((1, 3, 4, 6), 0.4)
    placement = {"size": torch.tensor([[2.0]]), "background": background}

    upright = compose(sprite, torch.tensor([[[4.0, 1.0]]]), angle=torch.zeros(1, 1), **placement)
    expected = background.clone()
    expected[0, :, 0, 3] = torch.tensor([1.0, 0, 0])
    expected[0, :, 0, 4] = torch.tensor([0.7, 0.2, 0.2])
    expected[0, :, 1, 4] = torch.tensor([1.0, 0, 0])
    torch.testing.assert_close(upright, expected)

    clockwise = compose(sprite, torch.tensor([[[4.0, 1.0]]]), angle=torch.full((1, 1), math.pi / 2), **placement)
    expected = background.clone()
    expected[0, :, 0, 4] = torch.tensor([1.0, 0, 0])  # the top left corner goes to the top right
    expected[0, :, 1, 4] = torch.tensor([0.7, 0.2, 0.2])
    expected[0, :, 1, 3] = torch.tensor([1.0, 0, 0])
    torch.testing.assert_close(clockwise, expected)


def test_compose_layers_sprites_in_order_and_leaves_out_size_zero() -> None:
    sprites = torch.zeros(1, 3, 4, 48, 48, dtype=torch.uint8)
    sprites[:, :, 3] = 255
    for layer in range(3):
        sprites[:, layer, layer] = 255  # red, green, blue
    centre = torch.tensor([[[4.0, 4.0], [4.0, 4.0], [4.0, 4.0]]])
    size = torch.tensor([[12.0, 4.0, 0.0]])
    image = compose(sprites, centre, size, torch.zeros(1, 3), torch.zeros(1, 3, 8, 8))
    assert image[0, :, 4, 4].tolist() == [0, 1, 0]
    assert image[0, :, 1, 1].tolist() == [1, 0, 0]


def test_small_sprites_keep_their_mean_colour() -> None:
    stripes = torch.zeros(1, 1, 4, 48, 48)
    stripes[..., ::2] = 1  # white
    stripes[:, :, 3] = 1
    small = compose(
        stripes, torch.tensor([[[4.0, 4.0]]]), torch.tensor([[6.0]]), torch.zeros(1, 1), torch.zeros(1, 3, 8, 8)
    )
    torch.testing.assert_close(small[0, :, 3:5, 3:5], torch.full((3, 2, 2), 0.5))


def test_random_scenes_depend_on_the_generator_alone(atlas: Atlas) -> None:
    sampler = Sampler(atlas)

    def scene(seed: int) -> torch.Tensor:
        source = generator(seed)
        return jitter(backgrounds(40, 24, source, sampler.pick(4, source)), source)

    state = torch.random.get_rng_state()
    first = scene(1)
    assert first.shape == (40, 3, 24, 24) and float(first.min()) >= 0 and float(first.max()) <= 1
    assert torch.equal(first, scene(1)) and not torch.equal(first, scene(2))
    assert torch.equal(state, torch.random.get_rng_state())


# --- captions and tokens ----------------------------------------------------------------------------------------------


def test_tokenizer_round_trip() -> None:
    tokenizer = load_tokenizer()
    text = "a picture of a red apple, food drink: 100% naïve"
    assert tokenizer.decode(tokenizer.encode(text)).split(" ")[:8] == [
        "a",
        "picture",
        "of",
        "a",
        "red",
        "apple",
        ",",
        "food",
    ]
    assert tokenizer.decode(tokenizer.encode("naïve 100%")).strip() == "naïve 1 0 0 %"
    tokens = tokenizer(["red apple", "word " * 60])
    assert tokens.shape == (2, 32)
    assert tokens[1, -1] == tokenizer.eot_token_id == tokenizer.vocab_size - 1


def test_merges_are_the_most_frequent_pairs(tmp_path) -> None:
    path = tmp_path / "merges.txt.gz"
    train_merges(["low lower", "lowest low low"], path, count=2)
    assert list(load_tokenizer(path).bpe_ranks) == [("l", "o"), ("lo", "w</w>")]
    first = path.read_bytes()
    train_merges(["low lowest low", "low lower"], path, count=2)
    assert path.read_bytes() == first


def test_trimmed_text_is_encoded_like_padded_text() -> None:
    model, tokens = load_clip(), load_tokenizer()(["red apple", "a picture of a dog."])
    with torch.inference_mode():
        torch.testing.assert_close(encode_short_text(model, tokens), model.encode_text(tokens))


# --- pretraining ------------------------------------------------------------------------------------------------------


def test_pretraining_never_draws_what_is_held_out(atlas: Atlas) -> None:
    sampler, source = Sampler(atlas), generator()
    held_out = torch.from_numpy(atlas.held_out.copy())
    for _ in range(30):
        rows, styles = sampler.rows(512, source)
        assert len(rows.unique()) == 512
        assert not held_out[sampler.emoji[rows]].any()
        assert not (styles == atlas.style(HELD_OUT_STYLE)).any()
        assert torch.from_numpy(atlas.present.copy())[styles, sampler.emoji[rows]].all()
    seen = {
        atlas.sprites[style, e].transpose(2, 0, 1).tobytes()
        for style in atlas.seen_styles
        for e in np.flatnonzero(~atlas.held_out & atlas.present[style])
    }
    assert all(sprite.numpy().tobytes() in seen for sprite in sampler.pick(500, source))
    pool = caption_pool(atlas, seed=0)
    assert len(pool) == (~atlas.held_out).sum()
    texts = {text for texts in pool for text in texts}
    assert not texts & {atlas.names[e] for e in np.flatnonzero(atlas.held_out)}


def test_the_schedule_does_not_depend_on_the_number_of_steps_before_the_decay() -> None:
    short, long = Recipe(steps=1000), Recipe(steps=2000)
    assert [learning_rate(step, short) for step in range(700)] == [learning_rate(step, long) for step in range(700)]
    assert learning_rate(0, short) < learning_rate(299, short) == short.learning_rate
    assert learning_rate(999, short) < 1e-4 * short.learning_rate
    assert [sees_whole_images(step, short) for step in (849, 850)] == [False, True]


# --- weights ----------------------------------------------------------------------------------------------------------


def test_shipped_files_are_those_of_the_recipe(recipe: dict) -> None:
    for name, digest in recipe["sha256"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, name


def test_the_model_is_a_plain_open_clip_of_the_stated_size(recipe: dict) -> None:
    model = load_clip()
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    total = sum(parameter.numel() for parameter in model.parameters())
    vision = sum(parameter.numel() for parameter in model.visual.parameters())
    assert recipe["parameters"] == {"total": total, "vision": vision}
    assert total - vision < 1_000_000
    assert model.visual.image_mean == IMAGE_MEAN and model.visual.image_std == IMAGE_STD
    assert model.visual.attn_pool is None and model.visual.pool_type == "tok"
    assert isinstance(model.visual.transformer.resblocks[0].mlp.gelu, torch.nn.GELU)


@pytest.mark.parametrize("style", ["seen", "held out"])
def test_recorded_zero_shot_accuracy_is_reproduced_on_a_sample(
    atlas: Atlas, recipe: dict, names: torch.Tensor, style: str
) -> None:
    styles = atlas.seen_styles.tolist() if style == "seen" else [atlas.style(HELD_OUT_STYLE)]
    batches = evaluation_batches(atlas, styles, np.flatnonzero(~atlas.held_out), seed=2, limit=500)
    found = zero_shot(load_clip(), names, np.arange(len(atlas)), batches)
    recorded = recipe["zero_shot"][f"{style.replace(' ', '_')}_style{'s' * (style == 'seen')}_seen_emoji"]
    assert found["n"] == 500
    deviation = 100 * math.sqrt(recorded["top1"] / 100 * (1 - recorded["top1"] / 100) / 500)
    assert found["top1"] == pytest.approx(recorded["top1"], abs=4 * deviation)
