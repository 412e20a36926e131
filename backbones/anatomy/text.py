"""The text tower of a vision-language model as methods see it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from ...errors import PeftmarkError, Unsupported
from .packed_texts import PackedTexts
from .parts import Block, Insertion
from .slots import Insert, Predicate, has_slots, is_inserted

SCALES = ("logit_scale", "logit_bias", "temperature")
"""Parameters of a whole model that belong to neither tower."""


class TextInsert(Insert):
    """Base of what a method puts where classes are told apart: it learns of the class names."""

    def set_class_names(self, text: TextTower, class_names: Sequence[str]) -> None:
        """Take (new) class names; called once after `adapt` and whenever the names change."""


class PromptInsert(TextInsert):
    """Makes the text tower's input embeddings from class names, in place of written prompts (CoOp and its kin).

    Class attributes:
        conditional: whether `forward` is given normalised image features (N, E) and makes prompts for each image.
    """

    conditional: ClassVar[bool] = False

    def forward(self, features: Tensor | None = None) -> tuple[Tensor, Tensor | PackedTexts]:
        """Embeddings without positions, and the ids or packed texts that they stand for: what `TextTower.encode` takes.

        The embeddings are (C, L, width) or (T, width), of a conditional insert (N, C, L, width) or (N, T, width).
        """
        raise NotImplementedError


class LogitInsert(TextInsert):
    """Changes the logits by what it knows of the images (Tip-Adapter's cache)."""

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Normalised image features (N, E) and the logits (N, C) by the text tower -> logits (N, C)."""
        raise NotImplementedError


@dataclass(kw_only=True)
class TextTower(ABC):
    """A text encoder: token ids -> embeddings -> features in the space shared with images. One subclass per family.

    Attributes:
        root: the whole vision-language model. image: its image tower.
        width: of a token embedding. embed_dim: E, of the space shared with images.
        context_length: tokens a text may have.
        log: the anatomy's list of insertions.
        token_blocks: its residual blocks; empty where their parts are not known.
        templates: the task's, "a photo of a {}." and the like; known before a method adapts.
    """

    root: nn.Module
    image: nn.Module
    width: int
    embed_dim: int
    context_length: int
    log: list[Insertion] = field(repr=False)
    token_blocks: tuple[Block, ...] = field(repr=False, default=())
    templates: tuple[str, ...] = ()
    _written: dict[str, tuple[Tensor, PackedTexts | None]] = field(repr=False, init=False, default_factory=dict)
    _written_for: tuple[tuple[str, ...], torch.device] | None = field(repr=False, init=False, default=None)

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> ids (len(texts), context_length). A text that is too long is cut, its end token kept."""

    @property
    def start(self) -> int:
        """How many tokens stand before a text's words: 1 where there is a start token, else 0 (SigLIP)."""
        return self._marks[0]

    @cached_property
    def _marks(self) -> tuple[int, int]:
        """`start`, and the id behind a text's words: of an end token, or of padding where there is none (CLIPA)."""
        empty, letter = self.tokenize(["", "a"])
        start = int((empty != letter).int().argmax())
        return start, int(empty[start])

    def lengths(self, ids: Tensor) -> Tensor:
        """Ids (C, L) -> tokens of each text, start and end included (C,)."""
        start, end = self._marks
        ends = ids[:, start:] == end
        return torch.where(ends.any(dim=1), start + ends.int().argmax(dim=1) + 1, ids.shape[1])

    def trim(self, ids: Tensor) -> Tensor:
        """Ids (C, L) without the last positions, as far as no feature depends on these: all where padding is seen."""
        return ids

    def pack(self, ids: Tensor) -> PackedTexts | None:
        """Ids (C, L) as `encode` can take them in their place; None where a token depends on what follows it."""
        return None

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """Ids (C, L) -> token embeddings (C, L, width), positions not added."""

    @torch.inference_mode(False)  # what is kept of a prediction could not be trained with
    def _write(self, template: str) -> tuple[Tensor, PackedTexts | None]:
        """The ids of the class names of now in a template, and packed: kept for a tower that trains."""
        if template not in self._written:
            assert self._written_for is not None
            class_names, device = self._written_for
            texts = [template.format(name.replace("_", " ")) for name in class_names]
            ids = self.trim(self.tokenize(texts)).to(device)
            self._written[template] = ids, self.pack(ids)
        return self._written[template]

    @abstractmethod
    def encode(self, embedded: Tensor, ids: Tensor | PackedTexts) -> Tensor:
        """Embeddings (C, L, width) and the ids (C, L) they stand for -> features (C, E), not normalised.

        Or of packed texts: embeddings (…, T, width) -> features (…, C, E); while `dropping`, by way of each text alone.
        """

    @abstractmethod
    def logits(self, cosines: Tensor) -> Tensor:
        """Cosines (N, C) of images and texts -> logits, by the model's own scale (and bias)."""

    def scaled(self, cosines: Tensor) -> Tensor:
        """The same, by what was inserted in the place of the model's own scale, if anything was."""
        insert = dict(self._slots().items()).get("scale") if has_slots(self.root) else None
        return self.logits(cosines) if insert is None else insert(cosines)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Raises Unsupported where the tower is not made of residual blocks whose parts are known."""
        if not self.token_blocks:
            raise Unsupported("the text tower has no transformer blocks whose parts are known")
        return self.token_blocks

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The tower's own parameters, without what was inserted."""
        return (
            (name, parameter)
            for name, parameter in self._outside_image()
            if not name.startswith(SCALES) and not is_inserted(name)
        )

    def _outside_image(self) -> Iterator[tuple[str, nn.Parameter]]:
        image = {id(parameter) for parameter in self.image.parameters()}
        return ((name, p) for name, p in self.root.named_parameters() if id(p) not in image)

    @property
    def prompt(self) -> PromptInsert | None:
        """What replaces written prompts; None where nothing does."""
        return cast("PromptInsert | None", dict(self._slots().items()).get("prompt")) if has_slots(self.root) else None

    def insert_prompt(self, insert: PromptInsert) -> None:
        """Let `insert` make the embeddings that the tower encodes."""
        self._slots()["prompt"] = insert
        self.log.append(Insertion(self, insert))

    def insert_scale(self, insert: Insert) -> None:
        """Let `insert` make logits of cosines (N, C), in place of the model's own scale and bias."""
        self._slots()["scale"] = insert
        self.log.append(Insertion(self, insert))

    def add_after_image(self, insert: Insert) -> None:
        """Map the image embeddings (N, E), before they are normalised."""
        self._add("image", insert)

    def add_after_logits(self, insert: LogitInsert) -> None:
        """Map the logits, by image features."""
        self._add("logits", insert)

    def _add(self, slot: str, insert: Insert) -> None:
        cast(nn.ModuleList, self._slots()[slot]).append(insert)
        self.log.append(Insertion(self, insert))

    def _slots(self) -> nn.ModuleDict:
        if not has_slots(self.root):
            self.root.slots = nn.ModuleDict({"image": nn.ModuleList(), "logits": nn.ModuleList()})
        return cast(nn.ModuleDict, self.root.slots)

    def image_features(self, embeddings: Tensor) -> Tensor:
        """Image embeddings (N, E) -> normalised features (N, E), by way of what was inserted."""
        if has_slots(self.root):
            for insert in cast(nn.ModuleList, self._slots()["image"]):
                embeddings = insert(embeddings)
        return F.normalize(embeddings, dim=-1)

    def changed_logits(self, features: Tensor, logits: Tensor) -> Tensor:
        """What was inserted after the logits (N, C), by normalised image features (N, E)."""
        if has_slots(self.root):
            for insert in cast(nn.ModuleList, self._slots()["logits"]):
                logits = insert(features, logits)
        return logits

    @torch.inference_mode(False)  # what inserts keep of the names may be trained with
    def set_class_names(self, class_names: Sequence[str]) -> None:
        """Tell the inserts the names of the classes."""
        inserts = [*self._slots()["logits"].children(), self.prompt] if has_slots(self.root) else []
        for insert in inserts:
            if insert is not None:
                cast(TextInsert, insert).set_class_names(self, class_names)

    @property
    def trainable(self) -> bool:
        """Whether training changes the text features: a learned prompt, or something inside the tower."""
        later = ("slots.image.", "slots.logits.")
        return any(p.requires_grad for name, p in self._outside_image() if not name.startswith(later))

    @property
    def dropping(self) -> bool:
        """Whether a dropout is active in the tower."""
        later = (self._slots()["image"], self._slots()["logits"]) if has_slots(self.root) else ()
        left = [self.root]
        while left:
            module = left.pop()
            if isinstance(module, _DropoutNd) and module.training and module.p > 0:
                return True
            left += [child for child in module.children() if child is not self.image and child not in later]
        return False

    def train(self, choose: Predicate) -> None:
        """Make the tower's own parameters trainable for which ``choose(name, parameter)`` holds."""
        for name, parameter in self.named_parameters():
            if choose(name, parameter):
                parameter.requires_grad_(True)

    def ensemble(self, class_names: Sequence[str], templates: Sequence[str], normalize_each: bool = True) -> Tensor:
        """Class features (C, E): the mean of the normalised features over the templates, normalised again.

        Args:
            normalize_each: before the mean; without it templates weigh by the lengths of their features.

        Raises:
            PeftmarkError: where there is no template, or one has no ``{}`` for the class name.
        """
        if not templates or any("{}" not in template for template in templates):
            raise PeftmarkError(f"templates need one {{}} each for the class name; got {list(templates)}")
        device = next(self.root.parameters()).device
        if self._written_for != (tuple(class_names), device):
            self._written_for, self._written = (tuple(class_names), device), {}
        features = []
        for template in templates:
            ids, packed = self._write(template)
            embedded = self.embed(ids)
            encoded = self.encode(embedded, ids) if packed is None else self.encode(packed.take(embedded), packed)
            features.append(F.normalize(encoded, dim=-1) if normalize_each else encoded)
        if normalize_each and len(features) == 1:
            return features[0]  # as it is, bit by bit: a prompt of the same words starts there
        return F.normalize(torch.stack(features).mean(dim=0), dim=-1)
