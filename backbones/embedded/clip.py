"""The embedded CLIP: an ``open_clip.CLIP`` of two million parameters and its tokenizer, both read from this folder.

Images are (N, 3, 40, 40), normalised by ``IMAGE_MEAN`` and ``IMAGE_STD``; texts are (N, 32) token ids. Nothing here
touches the network.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import regex

from .atlas import FOLDER

if TYPE_CHECKING:  # what is planned needs none of it, and it takes longer to import than torch
    from open_clip import CLIP
    from open_clip.tokenizer import SimpleTokenizer

WEIGHTS = FOLDER / "clip.safetensors"
MERGES = FOLDER / "merges.txt.gz"
MERGE_COUNT = 800
CONTEXT_LENGTH = 32
EMBED_DIM = 128
IMAGE_MEAN = (0.5, 0.5, 0.5)
IMAGE_STD = (0.5, 0.5, 0.5)
CONFIG = {
    "embed_dim": EMBED_DIM,
    "vision_cfg": {"image_size": 40, "patch_size": 8, "width": 128, "layers": 6, "head_width": 32},
    "text_cfg": {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": 2 * 256 + MERGE_COUNT + 2,  # bytes, bytes that end a word, merges, start and end of text
        "width": 128,
        "heads": 4,
        "layers": 3,
    },
}
TEMPLATES = ("{}", "a picture of {}.", "a picture of a {}.", "an image of {}.", "this is a {}.")
"""Prompts for a class name; pretraining uses these and others."""


def load_clip(pretrained: bool = True, weights: Path = WEIGHTS) -> CLIP:
    """The model in float32 and eval mode, with the shipped weights or freshly initialised."""
    from open_clip import CLIP
    from open_clip.model import set_model_preprocess_cfg
    from safetensors.torch import load_file

    model = CLIP(**CONFIG)
    if pretrained:
        model.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    preprocess = {"size": 40, "mean": IMAGE_MEAN, "std": IMAGE_STD, "interpolation": "bicubic", "resize_mode": "squash"}
    set_model_preprocess_cfg(model, preprocess)
    return model.eval()


def load_tokenizer(merges: Path = MERGES) -> SimpleTokenizer:
    """Texts to (N, 32) token ids, zero-padded, longer texts cut; lower-cases."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(bpe_path=str(merges), context_length=CONTEXT_LENGTH)


def train_merges(texts: Iterable[str], path: Path = MERGES, count: int = MERGE_COUNT) -> None:
    """Learn byte pair merges from texts and write them as ``SimpleTokenizer`` reads them."""
    _write_merges([], path)
    plain = load_tokenizer(path)
    words: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        for word in regex.findall(plain.pat, plain.clean_fn(text)):
            symbols = [plain.byte_encoder[byte] for byte in word.encode()]
            words[(*symbols[:-1], symbols[-1] + "</w>")] += 1
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, frequency in words.items():
            for pair in pairwise(word):
                pairs[pair] += frequency
        # Ties go to the pair that sorts first, so that the file does not depend on the order of the texts.
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = Counter({_merge(word, best): frequency for word, frequency in words.items()})
    _write_merges(merges, path)


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Join every occurrence of a pair, left to right."""
    merged: list[str] = []
    for symbol in word:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return tuple(merged)


def _write_merges(merges: list[tuple[str, str]], path: Path) -> None:
    """One merge a line below a header, no final newline (the reader would take it for a merge), no time stamp."""
    lines = ["#version: peftmark embedded captions", *(" ".join(pair) for pair in merges)]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
