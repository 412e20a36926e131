"""`adapt`: a backbone by name + a method by name -> a model that can be trained, saved, merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from .backbones import Anatomy, anatomy_of, find_backbone
from .errors import PeftmarkError
from .methods import AdaptedModel, Batches, Method, ScoringMethod, check_selection, make_method, make_model
from .tasks import Classification, Objective, OpenVocabulary

DEFAULT_TEMPLATES = ("a photo of a {}.",)


def adapt(
    backbone: str | nn.Module | Anatomy,
    method: str | Method,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    objective: Objective | None = None,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    num_frames: int | None = None,
    pretrained: bool = True,
    tokenizer: Any = None,
    batches: Batches | None = None,
    selection: Mapping[str, Tensor] | None = None,
    **config: Any,
) -> AdaptedModel:
    """Make a model of a backbone and a method.

    Args:
        backbone: a name (see `peftmark.backbones.find_backbone`); a model of timm, open_clip or transformers, of which
            a copy is adapted (see `peftmark.backbones.anatomy_of`), on the same device; or an anatomy that the adapted
            model may take over.
        method: a name, its hyper-parameters in `config`; or a method object.
        num_classes: of a linear classifier. Exactly one of this, `class_names` and `objective` is given.
        class_names: an open-vocabulary classifier over these names, written into `templates` ("a photo of a {}.").
        objective: what else is asked of the model (see `peftmark.tasks.Objective`).
        num_frames: frames T of a clip; images are then (N, T, 3, H, W).
        pretrained: load the weights of a backbone by name; False draws them and never touches the network.
        tokenizer: of a model with a text tower, where it is not open_clip's own or that of the model's own folder.
        batches: (images, targets) for methods that score parameters on data; ``model.scores`` keeps what they found.
        selection: what such a method shall choose, in place of `batches`: ``model.selection`` of another model, or bool
            masks of parameters' shapes by their names in ``model.anatomy.named_parameters()``.

    Returns:
        A model in training mode; (N, 3, H, W) -> (N, num_classes), or the objective's outputs.

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
    asked = _objective(num_classes, class_names, objective, templates)
    if isinstance(method, str):
        method = make_method(method, config)
    elif config:
        method = replace(method, **config)
    model = make_model(_anatomy(backbone, method, pretrained, tokenizer), method, asked, num_frames)
    if isinstance(backbone, nn.Module):
        model.to(next(backbone.parameters()).device)
    _prepare(model, batches, selection)
    return model.train()


def _anatomy(backbone: str | nn.Module | Anatomy, method: Method, pretrained: bool, tokenizer: Any) -> Anatomy:
    if isinstance(backbone, nn.Module):
        if not method.pretrained:
            raise PeftmarkError(f"{type(method).__name__} draws its weights: give a backbone's name, not a model")
        return anatomy_of(backbone, tokenizer)
    if tokenizer is not None:
        raise PeftmarkError("tokenizer= is for a model that you built: a backbone by name has its own")
    if isinstance(backbone, Anatomy):
        return backbone
    if not isinstance(backbone, str):
        raise PeftmarkError(f"a {type(backbone).__name__} is no backbone: give a name, a model or an Anatomy")
    return find_backbone(backbone).build(pretrained and method.pretrained)


def _prepare(model: AdaptedModel, batches: Batches | None, selection: Mapping[str, Tensor] | None) -> None:
    method = model.method
    if selection is not None:
        if not isinstance(method, ScoringMethod):
            raise PeftmarkError(
                f"{type(method).__name__} does not choose among parameters: selection= is for methods that score them"
            )
        if batches is not None:
            raise PeftmarkError("give batches= to choose by, or selection=, which is chosen already; not both")
        method.take(model, check_selection(model, selection))
    elif isinstance(method, ScoringMethod) and batches is not None:
        model.scores = method.scored(model, batches)
    elif batches is not None:
        method.prepare(model, batches)
    elif method.needs_batches:
        choice = ", or selection=, what it shall choose" if isinstance(method, ScoringMethod) else ""
        raise PeftmarkError(
            f"{type(method).__name__} scores parameters on data: give batches=, an iterable of (images, targets) pairs"
            f"{choice}"
        )


def _objective(
    num_classes: int | None, class_names: Sequence[str] | None, objective: Objective | None, templates: Sequence[str]
) -> Objective:
    asked = [] if objective is None else [objective]
    if num_classes is not None:
        asked.append(Classification(num_classes))
    if class_names is not None:
        asked.append(OpenVocabulary(class_names, templates))
    if len(asked) != 1:
        raise PeftmarkError(
            "give num_classes=N for a linear classifier, class_names=[…] for an open vocabulary, or another objective="
        )
    return asked[0]
