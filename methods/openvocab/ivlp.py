"""IVLP: independent vision-language prompting."""

from __future__ import annotations

from dataclasses import dataclass

from ...backbones import Anatomy
from ...registry import METHODS
from ..parts.deep_prompts import add_independent_prompts
from ..parts.learned_context import DeepContextMethod
from ..ranges import Count, Natural


@METHODS.register("ivlp", family="openvocab", tracks=("openvocab",))
@dataclass
class IVLP(DeepContextMethod):
    """Learned prompts in both towers, layer by layer, that know nothing of each other.

    The baseline of MaPLe (Khattak et al. 2023, arXiv:2210.03117, section 4.2), of multimodal-prompt-learning's
    trainers/independentVL.py and clip/model.py. In the first `depth` layers of each tower:

    - text: `n_ctx` tokens between start token and class name. The first layer's are the first `n_ctx` tokens of
      `init_words` (the other words stay, frozen); where it has fewer they start as N(0, 0.02), as all others do. Before
      each further block its own take the place of what came out of the block before.
    - image: `prompt_length` tokens, N(0, 0.02), behind all others, after positions and before the norm in front of the
      blocks; before each further block its own take their place. They leave before the final norm and pooling, which
      the class token does not notice.

    `image_depth` is the image tower's where it has another depth (PROMPT_DEPTH_VISION beside PROMPT_DEPTH_TEXT); 0
    leaves it as it is, as there. A tower with fewer blocks has prompts in all of them. 30,720 parameters on CLIP
    ViT-B/16 (2 · 12 · (512 + 768)); 46,080 with 4 and 4 tokens and depth 9.
    """

    n_ctx: Count = 2
    prompt_length: Count = 2
    depth: Count = 12
    image_depth: Natural | None = None

    def adapt(self, anatomy: Anatomy) -> None:
        super().adapt(anatomy)
        image_depth = self.depth if self.image_depth is None else self.image_depth
        add_independent_prompts(anatomy, self.n_ctx, self.prompt_length, self.depth, image_depth)
