"""Tokenizers that are made when they are first asked for: a model whose weights are drawn must not touch a hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import open_clip
from open_clip.tokenizer import HFTokenizer
from torch import Tensor

from ..errors import PeftmarkError
from .weights import tokenizer_folder

Tokenizer = Callable[[Sequence[str], int], Tensor]
"""Texts and a context length L -> ids (number of texts, L), padded, and cut where a text is too long."""


class LazyTokenizer:
    """A tokenizer that is made on first use.

    Args:
        make: makes it; a PeftmarkError of its is the user's one clear line.
    """

    def __init__(self, make: Callable[[], Tokenizer]) -> None:
        self.make = make
        self._made: Tokenizer | None = None

    def __call__(self, texts: Sequence[str], context_length: int) -> Tensor:
        if self._made is None:
            self._made = self.make()
        return self._made(texts, context_length)


def open_clip_tokenizer(architecture: str) -> Tokenizer:
    """The tokenizer of an open_clip architecture, as `open_clip.get_tokenizer` makes it.

    One that lies on a hub (SigLIP's) is taken from `tokenizer_folder` where that is there.
    """

    def make() -> Tokenizer:
        config = cast(dict[str, Any], open_clip.get_model_config(architecture))["text_cfg"]
        name = config.get("hf_tokenizer_name")
        if not name:
            made = open_clip.get_tokenizer(architecture)
        else:
            folder = tokenizer_folder(name)
            settings = {**config.get("tokenizer_kwargs", {}), "tokenizer_mode": config.get("tokenizer_mode")}
            source = str(folder) if folder.is_dir() else name
            made = _from_hub(name, folder, lambda: HFTokenizer(source, **settings))
        return lambda texts, context_length: made(list(texts), context_length=context_length)

    return LazyTokenizer(make)


def transformers_tokenizer(name: str, source: str, vocabulary: int) -> Tokenizer:
    """The tokenizer of a `transformers` model.

    Args:
        name: for messages. source: a folder, or a name on the hub.
        vocabulary: how many token embeddings the model has.
    """

    def make() -> Tokenizer:
        def load() -> Any:
            from transformers import AutoTokenizer

            loaded = AutoTokenizer.from_pretrained(source)
            if len(loaded) < vocabulary // 2:  # where files are missing it makes one of special tokens alone
                raise FileNotFoundError(f"a tokenizer of {len(loaded)} tokens for {vocabulary} embeddings")
            return loaded

        return _padding(_from_hub(name, Path(source) if Path(source).is_dir() else tokenizer_folder(name), load))

    return LazyTokenizer(make)


def prepared_tokenizer(tokenizer: Any) -> Tokenizer:
    """A tokenizer that a user made: one of transformers, of open_clip, or any function that is a `Tokenizer`."""
    of_transformers = any(kind.__name__ == "PreTrainedTokenizerBase" for kind in type(tokenizer).__mro__)
    return _padding(tokenizer) if of_transformers else lambda texts, length: tokenizer(list(texts), length)


def _padding(tokenizer: Any) -> Tokenizer:
    """A tokenizer of transformers as a `Tokenizer`."""

    def tokenize(texts: Sequence[str], context_length: int) -> Tensor:
        encoded = tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=context_length, return_tensors="pt"
        )
        return cast(Tensor, encoded["input_ids"])

    return tokenize


def _from_hub(name: str, folder: Path, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except ImportError as error:
        raise PeftmarkError(
            f"the tokenizer of {name} needs transformers: pip install 'peftmark[transformers]'"
        ) from error
    except Exception as error:  # offline, refused, gone, damaged: each has errors of its own
        raise PeftmarkError(
            f"the tokenizer of {name} cannot be had ({type(error).__name__}): put its files (tokenizer.json, "
            f"tokenizer_config.json) into {folder}"
        ) from error
