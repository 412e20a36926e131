"""Anatomy: what of a backbone a method may touch.

A method is written once against an anatomy's parts (`parts`); one builder per backbone family provides them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...errors import NotMergeable, Unsupported
from .inputs import InputKind, Pixels
from .parts import Affine, Attention, Block, Insertion
from .quantized import QUANTIZED
from .segments import Output, Segment
from .slots import Insert, Predicate, WeightDelta, is_inserted, remove_slots

if TYPE_CHECKING:
    from .text import TextTower


@dataclass
class Anatomy(ABC):
    """An image backbone as methods see it, and its text tower where it has one. One subclass per backbone family.

    Attributes:
        name: the backbone's name, for messages.
        model: the image backbone; parameter names are relative to it.
        root: the whole model (a CLIP holds `model` and the text tower; otherwise `root` is `model`).
        feature_dim: of `pooled`. input: what the backbone reads, and how it is prepared.
        stem: the patch embedding. norm: the final norm, before or after pooling.
        blocks: all residual blocks, of all stages. transitions: affine maps that run between, by the block they lead to
            (those of the stem, behind the patch embedding, lead to block 0).
        entering: what reads the tokens before the first block, positions added; perhaps no norm but `nn.Identity`.
        leaving: what reads the stream that leaves the last block, where that is not `norm`.
        norm_after_pooling: whether nothing does but the pooling itself.
        grid: patch tokens (rows, columns), None where the stream is a map; prefix_tokens: tokens before them (class
            token, registers).
        class_token: the index of the token that is read out, among the tokens without prompts; None where patches are
            pooled. It need not be the first.
        log: everything inserted so far, in order.
        masks: of parameters of which only some entries train (see `train_entries`), by name.
        held_in: what frozen matrices are held in (see `quantized.hold`).
        num_frames: T of the clips that the model is for, whose frames come as N·T images; None for images.
        text_lack: why there is no `text`, in words that follow the backbone's name.
        library_prefix: what names of `model`'s modules start with in its library's own model (that ends in a
            classifier, where the library has one); None where that has other modules.

    >>> from peftmark.backbones import find_backbone
    >>> anatomy = find_backbone("vit_tiny_patch16_224").build(pretrained=False)
    >>> len(anatomy.blocks), anatomy.width, anatomy.grid, anatomy.prefix_tokens
    (12, 192, (14, 14), 1)
    >>> list(anatomy.blocks[0].projections)  # its linear maps
    ['q', 'k', 'v', 'proj', 'fc1', 'fc2']
    >>> anatomy.train(lambda name, parameter: name.endswith("attn.qkv.bias"))  # everything else stays frozen
    >>> [name for name, parameter in anatomy.named_parameters() if parameter.requires_grad][:2]
    ['blocks.0.attn.qkv.bias', 'blocks.1.attn.qkv.bias']
    """

    name: str
    model: nn.Module
    root: nn.Module
    feature_dim: int
    input: InputKind
    log: list[Insertion]
    text: TextTower | None = None
    grid: tuple[int, int] | None = None
    prefix_tokens: int = 0
    class_token: int | None = None
    token_blocks: tuple[Block, ...] = ()
    patch_embedding: Affine | None = None
    final_norm: Affine | None = None
    entering: Affine | None = None
    leaving: Affine | None = None
    norm_after_pooling: bool = False
    transitions: dict[int, tuple[Affine, ...]] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)
    held_in: str = "float32"
    num_frames: int | None = None
    text_lack: str = "has no text tower"
    library_prefix: str | None = None

    def __post_init__(self) -> None:
        self.root.requires_grad_(False)

    @property
    def classifier(self) -> str | None:
        """In the library's own model, the name of the linear layer that reads `pooled`; None where there is none."""
        return None

    @abstractmethod
    def pooled(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> features (N, feature_dim) for a classifier."""

    def projected(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> embeddings (N, E) in the space shared with text. Raises Unsupported without one."""
        raise Unsupported(f"{self.name} has no text tower")

    def tokens(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> the final-normed patch tokens on their grid (N, rows, columns, D).

        Prompts and the tokens that are no patches are left out; of a hierarchical backbone they are the last stage's.

        Raises:
            Unsupported: where the backbone has none, or where they lie is not known.
        """
        raise Unsupported(f"{self.name} has no patch tokens, or none whose place is known")

    def patches(self, tokens: Tensor) -> Tensor:
        """Tokens (N, L, D) without prompts -> those of patches, on their grid (N, rows, columns, D)."""
        assert self.grid is not None
        others = {*range(self.prefix_tokens), self.class_token}
        kept = [index for index in range(tokens.shape[1]) if index not in others]
        first = self.prefix_tokens  # a slice where it does: no copy, forward or backward
        chosen = tokens[:, first:] if len(kept) == tokens.shape[1] - first else tokens[:, kept]
        return chosen.unflatten(1, self.grid)

    def segments(self, output: Output) -> tuple[Segment, ...]:
        """The steps of an output, as the model is now; one where its parts are not known."""
        return (Segment("all", getattr(self, output), (self.model,), pooled=True),)

    def output_width(self, output: Output) -> int:
        """The channels of an output. Raises Unsupported where the backbone does not have it."""
        if output == "projected":
            return self.text_tower().embed_dim
        return self.feature_dim if output == "pooled" else self.blocks[-1].width

    @property
    def pixels(self) -> Pixels:
        """The input. Raises Unsupported where the backbone does not read images."""
        if not isinstance(self.input, Pixels):
            raise Unsupported(f"{self.name} reads no images")
        return self.input

    @property
    def image_size(self) -> tuple[int, int]:
        """Rows and columns of the images. Raises Unsupported where the backbone reads none."""
        return self.pixels.size

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Raises Unsupported where the backbone is not made of residual blocks whose parts are known."""
        if not self.token_blocks:
            raise Unsupported(f"{self.name} has no transformer blocks, nor others whose parts are known")
        return self.token_blocks

    @property
    def width(self) -> int:
        """D, of all blocks. Raises Unsupported where it changes from stage to stage."""
        widths = {block.width for block in self.blocks}
        if len(widths) > 1:
            raise Unsupported(f"{self.name} has blocks of different widths, stage by stage")
        return widths.pop()

    @property
    def operations(self) -> tuple[Affine, ...]:
        """Every affine map that SSF scales and shifts, in the order in which they run.

        Raises:
            Unsupported: where the backbone's parts are not known.
        """
        inside = (
            operation
            for index, block in enumerate(self.blocks)
            for operation in (*self.transitions.get(index, ()), *block.operations)
        )
        return (self.stem, *inside, self.norm)

    @property
    def stem(self) -> Affine:
        """Raises Unsupported where the backbone has no patch embedding."""
        if self.patch_embedding is None:
            raise Unsupported(f"{self.name} has no patch embedding")
        return self.patch_embedding

    @property
    def norm(self) -> Affine:
        """Raises Unsupported where the backbone has no final norm over tokens."""
        if self.final_norm is None:
            raise Unsupported(f"{self.name} has no final norm over tokens")
        return self.final_norm

    @property
    def clip_length(self) -> int:
        """T, the frames of a clip. Raises Unsupported where the model is for images."""
        if self.num_frames is None:
            raise Unsupported("this method is for clips: give num_frames=T")
        return self.num_frames

    def add_before_blocks(self, insert: Insert) -> None:
        """Map the tokens (N, L, D) when positions are added, before a norm in front of the first block.

        Raises:
            Unsupported: where that place is not known.
        """
        if self.entering is None:
            raise Unsupported(f"{self.name} has no tokens with positions in front of its blocks")
        self.entering.add_before(insert)

    def add_after_blocks(self, insert: Insert) -> None:
        """Map the stream (N, L, D) as it leaves the last block, before norm and pooling (prompts leave there)."""
        if self.norm_after_pooling:
            self.blocks[-1].branches[-1].add_after_add(insert)
        else:
            (self.leaving or self.norm).add_before(insert)

    def drop_text(self) -> None:
        """Leave the text tower behind; parameter names of the whole model are then those of the image backbone."""
        self.root, self.text = self.model, None

    def text_tower(self) -> TextTower:
        """Raises Unsupported where the backbone has no text tower whose parts are known."""
        if self.text is None:
            raise Unsupported(f"{self.name} {self.text_lack}")
        return self.text

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The image backbone's own parameters, without what was inserted."""
        return ((name, p) for name, p in self.model.named_parameters() if not is_inserted(name))

    def train(self, choose: Predicate) -> None:
        """Make the image backbone's own parameters trainable for which ``choose(name, parameter)`` holds.

        Raises:
            Unsupported: where none is chosen.
        """
        chosen = [parameter for name, parameter in self.named_parameters() if choose(name, parameter)]
        if not chosen:
            raise Unsupported(f"{self.name} has no parameter that this method would train")
        for parameter in chosen:
            parameter.requires_grad_(True)

    def train_entries(self, masks: Mapping[str, Tensor]) -> None:
        """Train some entries of parameters: where a mask (bool, of the parameter's shape) is true.

        `AdaptedModel.optimizer_step` keeps the others bit-identical. A parameter without a true entry stays frozen;
        masks that were given before are forgotten.

        Raises:
            Unsupported: where no entry is chosen.
        """
        parameters = dict(self.named_parameters())
        chosen = {name: mask for name, mask in masks.items() if bool(mask.any())}
        if not chosen:
            raise Unsupported(f"{self.name} has no parameter entry that this method would train")
        for name in self.masks:
            parameters[name].requires_grad_(False)
        for name in chosen:
            parameters[name].requires_grad_(True)
        self.masks = chosen

    def clear(self) -> None:
        """Take out everything inserted and freeze everything; the backbone's weights stay as they are."""
        self._take_out()
        self.masks = {}
        self.root.requires_grad_(False)

    @property
    def mergeable(self) -> bool:
        """Whether `merge` can fold everything that was inserted."""
        try:
            self._check_foldable()
        except NotMergeable:
            return False
        return True

    def _check_foldable(self) -> None:
        if self.log and self.held_in in QUANTIZED:
            raise NotMergeable(f"weights that are held in {self.held_in} cannot take a change")
        for insertion in self.log:
            insertion.insert.check_foldable(insertion.host)

    @torch.no_grad()
    def merge(self) -> None:
        """Fold everything inserted into the weights and take the slots away.

        Raises:
            NotMergeable: where an insert cannot be folded; the model is left as it was.
        """
        self._check_foldable()  # first: half a merge would be a broken model
        for insertion in sorted(self.log, key=lambda item: not isinstance(item.insert, WeightDelta)):
            insertion.insert.fold_into(insertion.host)
        self._take_out()

    def _take_out(self) -> None:
        """Give the backbone its own structure again."""
        remove_slots(self.root)
        for block in self.token_blocks:
            for branch in block.branches:
                if isinstance(branch, Attention):
                    branch.fuse()
        self.log.clear()
