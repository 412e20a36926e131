"""`adapt`: a backbone by name + a method by name -> a model that can be trained, saved, merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..backbones import Anatomy, find_backbone
from ..errors import PeftmarkError
from .adapted_model import AdaptedModel
from .classifiers import Classifier, OpenVocabularyClassifier
from .method import Batches, Method, make_method

DEFAULT_TEMPLATES = ("a photo of a {}.",)


def adapt(
    backbone: str | Anatomy,
    method: str | Method,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    num_frames: int | None = None,
    pretrained: bool = True,
    batches: Batches | None = None,
    **config: Any,
) -> AdaptedModel:
    """Make a model of a backbone and a method.

    Args:
        backbone: a name (see `peftmark.backbones.find_backbone`) or an anatomy that the model may take over.
        method: a name, its hyper-parameters in `config`; or a method object.
        num_classes: of a linear classifier. Exactly one of `num_classes` and `class_names` is given.
        class_names: an open-vocabulary classifier over these names, written into `templates` ("a photo of a {}.").
        num_frames: frames T of a clip; images are then (N, T, 3, H, W).
        pretrained: load the backbone's weights; False draws them and never touches the network.
        batches: (images, labels) for methods that score parameters on data.

    Returns:
        A model in training mode; (N, 3, H, W) -> (N, num_classes).

    Raises:
        PeftmarkError: on unknown names, bad hyper-parameters, weights that cannot be had.
        Unsupported: where the method cannot work on the backbone.

    >>> import torch
    >>> model = adapt("vit_tiny_patch16_224", method="lora", num_classes=10, pretrained=False, rank=4)
    >>> model(torch.zeros(2, 3, 224, 224)).shape
    torch.Size([2, 10])
    >>> model.trainable_parameters(include_head=False)
    36864
    """
    if (num_classes is None) == (class_names is None):
        raise PeftmarkError("give num_classes=N for a linear classifier, or class_names=[…] for an open vocabulary")
    if isinstance(method, str):
        method = make_method(method, config)
    elif config:
        method = replace(method, **config)
    if isinstance(backbone, str):
        backbone = find_backbone(backbone).build(pretrained and method.pretrained)
    if class_names is not None:
        model: AdaptedModel = OpenVocabularyClassifier(backbone, method, class_names, templates)
    else:
        assert num_classes is not None
        model = Classifier(backbone, method, num_classes, num_frames)
    if batches is not None:
        method.prepare(model, batches)
    elif method.needs_batches:
        raise PeftmarkError(
            f"{type(method).__name__} scores parameters on data: give batches=, an iterable of (images, labels) pairs"
        )
    return model.train()
