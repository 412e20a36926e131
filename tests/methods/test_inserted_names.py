"""Names of inserted tensors: those that are written down, and the same whatever else a method inserts."""

from __future__ import annotations

from itertools import combinations

import pytest
from inserted_names import FILE, anatomy, inserted, listing

from peftmark.adapting import adapt

PROJECTIONS = ("q", "k", "v", "proj", "fc1", "fc2")
BRANCHES = ("attention", "mlp")
EVERY = {
    **dict.fromkeys(("lora", "dora", "dylora", "vera"), ("targets", PROJECTIONS)),
    "clip_lora": ("targets", PROJECTIONS[:4]),
    **dict.fromkeys(("convpass", "repadapter", "st_adapter"), ("targets", BRANCHES)),
    "aim": ("steps", ("spatial", "temporal", "joint")),
}


def test_names_are_those_that_are_written_down() -> None:
    """A saved adapter loads by them. Where they have to change: ``python tests/methods/inserted_names.py``."""
    assert listing().splitlines() == FILE.read_text().splitlines()


@pytest.mark.parametrize("backbone", ["embedded/vit", "embedded/clip"])
@pytest.mark.parametrize("method", EVERY)
def test_names_do_not_depend_on_what_else_is_inserted(method: str, backbone: str) -> None:
    option, choices = EVERY[method]
    if method == "clip_lora" and backbone == "embedded/vit":
        return
    every = set(inserted(backbone, method, **{option: choices}))
    for count in (1, min(2, len(choices) - 1)):
        for some in combinations(choices, count):
            names = set(inserted(backbone, method, **{option: some}))
            assert names < every, (some, sorted(names - every)[:1])


def test_projections_of_a_fused_layer_are_numbered() -> None:
    """q is 0, k is 1, v is 2, also in another order and alone."""
    for target, number in (("q", 0), ("k", 1), ("v", 2)):
        first = inserted("embedded/vit", "lora", targets=(target,))[0]
        assert first == f"backbone.blocks.0.attn.qkv.slots.rows.{number}.delta.0.down"
    assert inserted("embedded/vit", "lora", targets=("v", "q")) == inserted("embedded/vit", "lora", targets=("q", "v"))


def test_an_adapter_of_some_projections_has_its_place_in_one_of_more() -> None:
    few = adapt(anatomy("embedded/vit"), "lora", num_classes=3, targets=("v",)).adapter_state_dict()
    more = adapt(anatomy("embedded/vit"), "lora", num_classes=3, targets=("k", "v"))
    assert more.load_state_dict(few, strict=False).unexpected_keys == []
    places = dict(more.named_parameters())
    assert all((places[name] == value).all() for name, value in few.items())
