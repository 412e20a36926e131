"""Where the tensors of a PEFT folder belong in a backbone."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ...backbones import Anatomy
from ...errors import Unsupported
from .reading import PeftFiles

WRAPPER, TUNER = "base_model.model.", "base_model."
"""What PEFT puts in front of a model's names, and of what the layers of a tuner share."""


@dataclass
class Layout:
    """The tensors of a folder.

    Attributes:
        prefix: of the image backbone's names in the model that PEFT adapted.
        layers: what the adapter changes, by its names in the image backbone, in the order there.
        tensors: the adapter's, by PEFT's names of a model that is the image backbone alone.
        own: what replaces parameters of the backbone (biases, whole modules that were saved), by their names.
        head: the classifier's parameters.
    """

    prefix: str
    layers: list[str] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    own: dict[str, Tensor] = field(default_factory=dict)
    head: dict[str, Tensor] = field(default_factory=dict)


def lay_out(files: PeftFiles, anatomy: Anatomy) -> Layout:
    """
    Raises:
        PeftmarkError: where the folder cannot be read.
        Unsupported: where it is of a model with other layers, or the backbone's are not its library's.
    """
    if anatomy.library_prefix is None:
        raise Unsupported(f"{anatomy.name} has layers that its library's own model has not: no PEFT folder is of it")
    layout, found = Layout(anatomy.library_prefix), set[str]()
    parameters = dict(anatomy.named_parameters())
    layers = {name for name, module in anatomy.model.named_modules() if name and not len(list(module.children()))}
    for name, tensor in sorted(files.tensors().items()):
        rest = name.removeprefix(WRAPPER)
        of_head = rest.removeprefix(f"{anatomy.classifier}.")
        in_tower = rest.removeprefix(layout.prefix).replace(".base_layer.", ".")  # so are biases saved
        layer = _layer(in_tower, layers)
        if rest == name and name.startswith(TUNER):
            layout.tensors[name] = tensor
        elif of_head != rest:
            layout.head[of_head] = tensor
        elif in_tower in parameters:
            if parameters[in_tower].shape != tensor.shape:
                raise Unsupported(
                    f"{files.name} is of another model than {anatomy.name}: {in_tower} is {tuple(tensor.shape)} "
                    f"there, {tuple(parameters[in_tower].shape)} here"
                )
            layout.own[in_tower] = tensor
        elif layer is not None and rest != name:
            found.add(layer)
            layout.tensors[f"{WRAPPER}{in_tower}"] = tensor
        else:
            raise Unsupported(f"{files.name} is of another model than {anatomy.name}: that has no {in_tower[:100]!r}")
    layout.layers = [name for name, _ in anatomy.model.named_modules() if name in found]
    if not layout.layers:
        raise Unsupported(f"{files.name} changes no layer of {anatomy.name}")
    return layout


def _layer(name: str, layers: set[str]) -> str | None:
    """The layer that a tensor's name begins with."""
    while name := name.rpartition(".")[0]:
        if name in layers:
            return name
    return None
