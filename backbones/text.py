"""The text tower of a vision-language model as methods see it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import PeftmarkError
from .anatomy import Insertion
from .slots import Insert, Predicate, has_slots


class PromptInsert(Insert):
    """Makes the text tower's input embeddings from class names, in place of written prompts (CoOp and its kin)."""

    def set_class_names(self, text: TextTower, class_names: Sequence[str]) -> None:
        """Take (new) class names; called once after `adapt` and whenever the names change."""
        raise NotImplementedError

    def forward(self) -> tuple[Tensor, Tensor]:
        """Embeddings (C, L, width) without positions, and the token ids (C, L) that say where each text ends."""
        raise NotImplementedError


@dataclass
class TextTower(ABC):
    """A text encoder: token ids -> embeddings -> features in the space shared with images. One subclass per family.

    Attributes:
        root: the whole vision-language model.
        width: of a token embedding. context_length: tokens a text may have.
        log: the anatomy's list of insertions.
    """

    root: nn.Module
    width: int
    context_length: int
    log: list[Insertion] = field(repr=False)

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> ids (len(texts), context_length). A text that is too long is cut, its end token kept."""

    @abstractmethod
    def lengths(self, ids: Tensor) -> Tensor:
        """Ids (C, L) -> tokens of each text, start and end included (C,)."""

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """Ids (C, L) -> token embeddings (C, L, width), positions not added."""

    @abstractmethod
    def encode(self, embedded: Tensor, ids: Tensor) -> Tensor:
        """Embeddings (C, L, width) and the ids (C, L) they stand for -> features (C, E), not normalised."""

    @abstractmethod
    def logits(self, cosines: Tensor) -> Tensor:
        """Cosines (N, C) of images and texts -> logits, by the model's own scale (and bias)."""

    @abstractmethod
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The tower's own parameters, without what was inserted."""

    @property
    def prompt(self) -> PromptInsert | None:
        """What replaces written prompts; None where nothing does."""
        if not has_slots(self.root):
            return None
        prompt = self.root.get_submodule("slots.prompt")
        assert isinstance(prompt, PromptInsert)
        return prompt

    def insert_prompt(self, insert: PromptInsert) -> None:
        """Let `insert` make the embeddings that the tower encodes."""
        self.root.slots = nn.ModuleDict({"prompt": insert})
        self.log.append(Insertion(self, insert))

    @property
    def trainable(self) -> bool:
        """Whether training changes the text features: a learned prompt, or parameters of the tower itself."""
        prompt = self.prompt
        learned = prompt is not None and any(p.requires_grad for p in prompt.parameters())
        return learned or any(p.requires_grad for _, p in self.named_parameters())

    def train(self, choose: Predicate) -> None:
        """Make the tower's own parameters trainable for which ``choose(name, parameter)`` holds."""
        for name, parameter in self.named_parameters():
            if choose(name, parameter):
                parameter.requires_grad_(True)

    def ensemble(self, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Class features (C, E): the mean of the normalised features over the templates, normalised again.

        Raises:
            PeftmarkError: where there is no template, or one has no ``{}`` for the class name.
        """
        if not templates or any("{}" not in template for template in templates):
            raise PeftmarkError(f"templates need one {{}} each for the class name; got {list(templates)}")
        device = next(self.root.parameters()).device
        features = []
        for template in templates:
            ids = self.tokenize([template.format(name.replace("_", " ")) for name in class_names]).to(device)
            features.append(F.normalize(self.encode(self.embed(ids), ids), dim=-1))
        return F.normalize(torch.stack(features).mean(dim=0), dim=-1)
