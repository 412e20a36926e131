"""Where methods sit, as their cards tell."""

from __future__ import annotations

from typing import Any

import pytest

from peftmark.benchmark.launch.cards import method_places

HEAD = {"head": {"weight": 1}}
TRAINS = {"weight": 6, "bias": 6}


def each(places: str, how: dict[str, int]) -> dict[str, dict[str, int]]:
    return dict.fromkeys(places.split(), how)


PLACES: dict[str, dict[str, dict[str, int]]] = {
    "linear": HEAD,
    "lora": {**HEAD, "q": {"delta": 6}, "v": {"delta": 6}},  # of one fused qkv, not k
    "lora_fused": {**HEAD, **each("q k v", {"delta": 6})},  # of all of it
    "attention_only": {**HEAD, **each("q k v proj", TRAINS)},
    "ia3": {**HEAD, "k": {"after": 6}, "v": {"after": 6}, "fc2": {"before": 6}},
    "prefix_tuning": {**HEAD, "attention": {"prefix": 6}},
    "repadapter": {**HEAD, "attention.norm": {"after": 6}, "mlp.norm": {"after": 6}},
    "houlsby_adapter": {
        **HEAD,
        "attention": {"serial": 6},
        "mlp": {"serial": 6},
        "attention.norm": TRAINS,
        "mlp.norm": TRAINS,
        "entering": {"weight": 1, "bias": 1},
        "norm": {"weight": 1, "bias": 1},
    },
    "vpt_shallow": {**HEAD, "block": {"before": 1}, "norm": {"before": 1}},
    "vpt_deep": {**HEAD, "block": {"before": 6}, "norm": {"before": 1}},
    "head_mask": {**HEAD, **each("q k v proj", {"entries": 1})},
    "coop": {"text": {"prompt": 1}},
    "clip_lora": {
        **each("q k v", {"delta": 6}),
        **each("text.q text.k text.v", {"delta": 3}),
    },
    "zero_shot": {},
    "st_adapter": {**HEAD, "attention": {"after_add": 6}, "norm": {"before": 1}},
}


@pytest.mark.parametrize("method", PLACES)
def test_places(method: str) -> None:
    assert method_places(method)["parts"] == PLACES[method]


def test_all_of_a_backbone() -> None:
    places: dict[str, Any] = method_places("full")
    around = {
        **HEAD,
        "stem": {"weight": 1},  # a CLIP's has no bias
        "tokens": {"weight": 1},
        "entering": {"weight": 1, "bias": 1},
        "norm": {"weight": 1, "bias": 1},
    }
    assert places["parts"] == {**each("attention.norm q k v proj mlp.norm fc1 fc2", TRAINS), **around}
    assert (places["model"], places["blocks"], places["text_blocks"]) == ("embedded/vit", 6, 0)


def test_a_made_up_model_disturbs_no_random_numbers() -> None:
    import torch

    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    assert method_places("gps") == method_places("gps")  # scored on made-up data, always the same
    assert torch.equal(torch.rand(1), expected)
