"""An adapter that Hugging Face PEFT saved, as a method to be evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from ...backbones import Anatomy
from ...errors import PeftmarkError, Unsupported
from ...registry import METHODS
from ..files import know_files, known_files
from ..method import Method, Phase, check_hyperparameters
from ..parts.peft_adapter import PeftAdapter
from .folder_layout import Layout, lay_out
from .library import ADAPTER, import_peft, insert_layers, without_harmless_warnings
from .peft_config import peft_config, tuner_of
from .reading import PeftFiles, read_folder

Head = Literal["loaded", "new"]
Training = Literal["nothing", "head", "all"]

_HINTS = {"path": str, "adapter_sha256": str, "peft_type": str, "peft_version": str, "head": Head, "train": Training}


@METHODS.register("peft_folder/*", family="peft", tracks=("image", "openvocab", "video"))
@dataclass
class PeftFolder(Method):
    """A PEFT folder: ``--method peft_folder/NAME --set method.path=DIR``; the name is yours, and tells rows apart.

    DIR holds ``adapter_config.json`` and ``adapter_model.safetensors``, as `save_pretrained` of PEFT writes them and as
    they lie on the Hub, trained on the same model of timm or transformers. PEFT's own layers are put into the backbone.
    No pickle is loaded, nothing is fetched: the backbone is the run's, whatever the configuration says. In a run's
    configuration stands the sha256 of the two files' contents in place of DIR.

    `head` is ``loaded`` where the folder holds the classifier (among PEFT's ``modules_to_save``), whose classes must be
    the task's, in their order; else ``new``. `train` is what the protocol trains:

    - ``nothing``: the adapter is evaluated as it was loaded; the default with the folder's own classifier.
    - ``head``: the classifier alone, on the frozen adapter; the default with a new one.
    - ``all``: the classifier and the adapter, from where the folder left it. What a tuner adds to a loss is left out.

    What is not trained here does not count as trained; stored it is.
    """

    identity_at_start: ClassVar[bool] = False

    files: PeftFiles
    head: Head
    train: Training
    peft_version: str
    _head: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def defaults(cls, name: str) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, name: str, config: Mapping[str, Any]) -> Self:
        installed = import_peft(f"method {name}").__version__
        checked = check_hyperparameters(name, config, _HINTS)
        wanted = checked.get("peft_version", installed)
        if wanted != installed:
            raise PeftmarkError(f"method {name!r} was run with peft {wanted}; installed is {installed}")
        files = read_folder(_folder(name, checked))
        if checked.get("adapter_sha256", files.sha256) != files.sha256:
            raise PeftmarkError(f"method {name!r}: {files.folder} has changed since the run was planned, or is another")
        tuner_of(files)
        know_files({files.sha256: files.folder})
        holds_head = bool(files.config.get("modules_to_save"))
        head: Head = checked.get("head", "loaded" if holds_head else "new")
        if head == "loaded" and not holds_head:
            raise PeftmarkError(f"method {name!r}: {files.folder} holds no classifier: set method.head=new")
        return cls(files, head, checked.get("train", "nothing" if head == "loaded" else "head"), installed)

    def __post_init__(self) -> None:
        """The fields were checked where they came from."""

    def config(self) -> dict[str, Any]:
        return {
            "adapter_sha256": self.files.sha256,
            "peft_type": self.files.kind,
            "head": self.head,
            "train": self.train,
            "peft_version": self.peft_version,
        }

    def phases(self) -> Sequence[Phase]:
        return (Phase("train", epochs=0 if self.train == "nothing" else 1),)

    def adapt(self, anatomy: Anatomy) -> None:
        layout = lay_out(self.files, anatomy)
        if self.head == "loaded" and not layout.head:
            raise PeftmarkError(f"{self.files.name} holds no classifier of {anatomy.name}: set method.head=new")
        if self.head == "loaded" and anatomy.text is not None:
            raise PeftmarkError(f"{self.files.name} holds a classifier, which reads no names: set method.head=new")
        self._head = layout.head if self.head == "loaded" else {}
        self._insert(layout, anatomy)
        own = dict(anatomy.named_parameters())
        with torch.no_grad():
            for name, tensor in layout.own.items():
                own[name].copy_(tensor)
        if self.train == "all":
            for name in layout.own:
                own[name].requires_grad_(True)

    def _insert(self, layout: Layout, anatomy: Anatomy) -> None:
        """Make PEFT's layers without values, so that only what the file has takes memory, and load them."""
        config = peft_config(self.files, layout)
        modules = dict(anatomy.model.named_modules())
        names, own = {modules[name]: name for name in layout.layers}, set(anatomy.model.parameters())
        tuner_class = import_peft("a PEFT folder").PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
        try:
            with without_harmless_warnings():
                tuner = tuner_class(anatomy.model, config, ADAPTER, low_cpu_mem_usage=True)
                _load(tuner, layout, own)
        except (ValueError, TypeError, NotImplementedError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise Unsupported(f"{self.files.name} does not fit {anatomy.name}: {reason}") from error
        insert_layers(anatomy, tuner, names, self.files.kind, config.to_dict())
        for insertion in anatomy.log:
            insert, trained = insertion.insert, self.train == "all"
            insert.requires_grad_(trained)
            insert.learned_buffers = () if trained else tuple(name for name, _ in insert.named_parameters())

    def to_peft(self, anatomy: Anatomy) -> PeftAdapter:
        raise Unsupported(f"the adapter is a PEFT folder already: {self.files.name}")

    def start_head(self, head: nn.Module) -> None:
        if self.head == "new":
            if self.train == "nothing":
                raise PeftmarkError("a new classifier has to be trained: method.train=head, or all")
            return
        own = dict(head.named_parameters())
        shapes = {name: tuple(parameter.shape) for name, parameter in own.items()}
        loaded = {name: tuple(tensor.shape) for name, tensor in self._head.items()}
        if shapes != loaded:
            raise Unsupported(
                f"the classifier in {self.files.name} does not fit the task's ({_words(loaded)}; {_words(shapes)}): "
                f"method.head=new trains another one"
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(self._head[name])


def _folder(name: str, config: Mapping[str, Any]) -> Path:
    """Where the adapter lies: as was asked, or, in a worker, as was remembered of its content."""
    if "path" in config:
        return Path(config["path"]).expanduser().resolve()
    if "adapter_sha256" not in config:
        raise PeftmarkError(f"method {name!r} is an adapter that PEFT saved: give its folder, --set method.path=DIR")
    found = known_files().get(config["adapter_sha256"])
    if found is None:
        raise PeftmarkError(f"method {name!r}: where its adapter lies is not known here: give --set method.path=DIR")
    return found


def _load(tuner: Any, layout: Layout, own: set[nn.Parameter]) -> None:
    """Load the tensors into layers around the backbone's `own` parameters.

    Raises:
        ValueError: where tensors are left over or lacking.
        RuntimeError: where one is of another shape.
    """
    from peft import set_peft_model_state_dict

    whole: Any = nn.Module()  # what PEFT's functions take for the model around a tuner
    whole.base_model, whole.peft_config = tuner, tuner.peft_config
    made = {name for name, parameter in whole.named_parameters() if parameter not in own}
    result: Any = set_peft_model_state_dict(whole, layout.tensors, adapter_name=ADAPTER, low_cpu_mem_usage=True)
    lacking = sorted(made.intersection(result.missing_keys))
    for what, names in (("has tensors that belong nowhere", result.unexpected_keys), ("lacks tensors", lacking)):
        if names:
            raise ValueError(f"it {what}: {len(names)}, e.g. {names[0][:100]!r}")


def _words(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name[:50]} {shape}" for name, shape in sorted(shapes.items())) or "nothing"
