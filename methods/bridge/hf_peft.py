"""Hugging Face PEFT's tuners as methods."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast, get_type_hints

import msgspec
import torch
from torch import Tensor, nn

from ...backbones import Anatomy, Attention
from ...errors import PeftmarkError, Unsupported
from ...registry import METHODS
from ..adapted_model import AdaptedModel
from ..method import Context, Method, check_hyperparameters
from ..parts.low_rank import Projection
from .library import ADAPTER, TunerLayer, import_peft, insert_layers, without_harmless_warnings

if TYPE_CHECKING:
    from ...tasks import Targets

NAMESPACE = "peft/"
_TOKENS = "it puts learned tokens among a language model's token embeddings"
EXCLUDED = {
    "adaption_prompt": "it is written for the attention of Llama, Mistral and GPT-2",
    "cartridge": "it trains a language model's key-value cache",
    "cpt": _TOKENS,
    "multitask_prompt_tuning": _TOKENS,
    "p_tuning": _TOKENS,
    "poly": "it learns which skills tasks share and needs a task id with every image; a run has one task",
    "prefix_tuning": "it trains a language model's key-value cache; the method prefix_tuning is peftmark's own",
    "prompt_tuning": _TOKENS,
    "shadow": "it runs a smaller copy beside a model of the transformers or diffusers library",
    "trainable_tokens": "it trains rows of a token embedding",
    "xlora": "it mixes LoRA adapters that were trained before, by a language model's hidden states",
}
"""PEFT's tuners that cannot adapt an image backbone, with the reason."""


@dataclass(frozen=True)
class Defaults:
    """What of a tuner differs from the rule, which is PEFT's own defaults on q and v (as PEFT has for ViTs)."""

    reason: str
    targets: tuple[Projection, ...] = ("q", "v")
    settings: Mapping[str, Any] = field(default_factory=dict)


DEFAULTS = {
    "c3a": Defaults("PEFT's 256 does not divide the width of a small ViT", settings={"block_size": 64}),
    "ia3": Defaults("the paper's: keys, values, and the input of the MLP's second layer", ("k", "v", "fc2")),
    "vblora": Defaults("PEFT's 256 does not divide the width of a small ViT", settings={"vector_length": 64}),
}

_BY_TARGETS = "which layers change is said by targets (q, k, v, proj, fc1, fc2)"
_BY_PEFTMARK = "how adapters are saved and run is peftmark's"
_FOR_LANGUAGE = "it is for language models"
_BY_DATA = "it starts an adapter from statistics of data or from a quantised model, which the bridge does not do"
SET_ELSEWHERE = {
    **dict.fromkeys(
        ("target_modules", "exclude_modules", "feedforward_modules", "target_parameters", "modules_to_save",
         "layers_to_transform", "layers_pattern"),
        _BY_TARGETS,
    ),
    **dict.fromkeys(
        ("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "revision", "task_type",
         "progressbar", "runtime_config", "runtime_offload_base_weight", "save_indices", "save_only_topk_weights",
         "save_precomputed_indices", "save_projection"),
        _BY_PEFTMARK,
    ),
    **dict.fromkeys(
        ("alora_invocation_tokens", "ensure_weight_tying", "fan_in_fan_out", "layer_replication", "megatron_config",
         "megatron_core", "trainable_token_indices"),
        _FOR_LANGUAGE,
    ),
    **dict.fromkeys(
        ("arrow_config", "corda_config", "eva_config", "loftq_config", "lora_ga_config", "use_qalora",
         "qalora_group_size"),
        _BY_DATA,
    ),
    "total_step": "it is the number of steps that the protocol gives",
}  # fmt: skip
"""Fields of PEFT's configs that are no hyper-parameters here, with what stands in their place."""

_DATA_DRIVEN = ("corda", "eva", "loftq", "lora_ga")


@METHODS.register("peft/*", family="peft", tracks=("image", "openvocab", "video"))
@dataclass
class HfPeft(Method):
    """A tuner of Hugging Face PEFT under its own name, e.g. ``peft/adalora`` (Mangrulkar et al. 2022).

    PEFT's own code changes, trains and merges the layers (https://github.com/huggingface/peft, the version that is
    installed). Hyper-parameters are the fields of the tuner's PEFT config, with PEFT's defaults, and ``targets``: the
    linear maps to change, q and v by default (`DEFAULTS` lists what differs). LN tuning has no targets, it trains every
    LayerNorm. The version of PEFT is in the spec: records of another version are other runs.

    Every tuner starts as PEFT starts it: from the bare backbone, but for C3A, FourierFT, Uni-LoRA and VB-LoRA, which
    draw all that they train. Where a backbone fuses q, k and v, they are split into layers of their own while the
    method is in it. AdaLoRA and AdaMSS allocate after every step; AdaLoRA's, KaSA's and MonteCLoRA's regularisers are
    in the loss.

    Not here: tuners that need a language model (`EXCLUDED`, each with its reason), and initialisations from data or
    from quantised weights (EVA, CorDA, LoRA-GA, LoftQ).
    """

    looks_at_images: ClassVar[bool] = False

    tuner: str
    targets: tuple[Projection, ...]
    settings: dict[str, Any]
    """PEFT's fields, defaults included."""

    @classmethod
    def members(cls) -> list[str]:
        """The names of all tuners of the installed PEFT that can adapt an image backbone.

        Raises:
            PeftmarkError: where PEFT is not installed.
        """
        return [NAMESPACE + tuner for tuner in _tuners("peft/*") if tuner not in EXCLUDED]

    @classmethod
    def from_config(cls, name: str, config: Mapping[str, Any]) -> Self:
        tuner = name.removeprefix(NAMESPACE)
        known = _tuners(name)
        if tuner in EXCLUDED:
            raise PeftmarkError(f"method {name!r} is not for images: {EXCLUDED[tuner]}")
        if tuner not in known:
            near = difflib.get_close_matches(name, cls.members(), n=3)
            hint = f"did you mean {', '.join(near)}?" if near else "see `peftmark list methods 'peft/*'`"
            raise PeftmarkError(f"unknown method {name!r}: {hint}")
        config = dict(config)
        installed = import_peft(f"method {name}").__version__
        wanted = config.pop("peft_version", installed)
        if wanted != installed:
            raise PeftmarkError(f"method {name!r} was run with peft {wanted}; installed is {installed}")
        hints = _hyperparameters(known[tuner])
        for key in {item.name for item in dataclasses.fields(known[tuner])}.intersection(config):
            if key in SET_ELSEWHERE:
                raise PeftmarkError(f"method {name!r}: {key} cannot be set: {SET_ELSEWHERE[key]}")
        own = DEFAULTS.get(tuner, Defaults("PEFT's defaults"))
        checked = check_hyperparameters(name, config, hints)
        targets = checked.pop("targets", own.targets)
        settings = {**_defaults(known[tuner], hints), **own.settings, **checked}
        method = cls(tuner, tuple(targets), settings)
        method._check(name)
        return method

    def _check(self, name: str) -> None:
        """Everything that PEFT says of a config before it sees a model."""
        if not self.targets:
            raise PeftmarkError(f"method {name!r}: targets must name a projection")
        start = self.settings.get("init_lora_weights")
        if start in _DATA_DRIVEN:
            raise PeftmarkError(f"method {name!r}: init_lora_weights={start!r} cannot be set: {_BY_DATA}")
        try:
            self._peft_config(["x"])
        except (ValueError, TypeError, NotImplementedError) as error:
            raise PeftmarkError(f"method {name!r}: {_first_line(error)}") from error

    def _peft_config(self, modules: Sequence[str], feedforward: Sequence[str] = ()) -> Any:
        """PEFT's config for the modules of these names (a list would also match longer names that end so)."""
        config_class = _tuners(NAMESPACE + self.tuner)[self.tuner]
        settings = copy.deepcopy(self.settings)
        fields = {item.name for item in dataclasses.fields(config_class)}
        if "feedforward_modules" in fields:
            settings["feedforward_modules"] = _pattern(feedforward)
        if "total_step" in fields:  # known when training starts: see `after_step`
            settings["total_step"] = settings["tinit"] + settings["tfinal"] + 1
        if "progressbar" in fields:
            settings["progressbar"] = False
        return config_class(target_modules=_pattern(modules), **settings)

    def adapt(self, anatomy: Anatomy) -> None:
        modules = self._modules(anatomy)
        all_names = {module: name for name, module in anatomy.model.named_modules()}
        names = {module: all_names[module] for module in modules}
        outputs = [block.mlp.output.module for block in anatomy.token_blocks]
        config = self._peft_config([*names.values()], [names[m] for m in outputs if m in names])
        tuner_class = import_peft(f"method {NAMESPACE}{self.tuner}").PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
        try:  # what `peft.inject_adapter_in_model` does, which refuses tuners that share tensors among layers
            with without_harmless_warnings():
                tuner = tuner_class(anatomy.model, config, ADAPTER)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise Unsupported(f"{anatomy.name}: peft/{self.tuner}: {_first_line(error)}") from error
        insert_layers(anatomy, tuner, names, self.tuner, self.settings)

    def _modules(self, anatomy: Anatomy) -> list[nn.Module]:
        """The layers to change, each of them whole."""
        if self.tuner == "ln_tuning":
            norms: list[nn.Module] = [module for module in anatomy.model.modules() if isinstance(module, nn.LayerNorm)]
            if not norms:
                raise Unsupported(f"{anatomy.name} has no LayerNorm")
            return norms
        for branch in (branch for block in anatomy.blocks for branch in block.branches):
            if isinstance(branch, Attention):
                branch.split()
        return [linear.module for block in anatomy.blocks for linear in block.linears(self.targets)]

    def loss(self, model: AdaptedModel, images: Tensor, targets: Targets, context: Context) -> Tensor:
        """Cross-entropy, and the regulariser of a tuner that has one."""
        layers = [cast(TunerLayer, insertion.insert) for insertion in model.anatomy.log]
        if self.tuner == "osf":
            _project_gradients(layers)
        loss = super().loss(model, images, targets, context)
        if self.tuner == "adalora":
            loss = loss + self.settings["orth_reg_weight"] * _orthogonality(layers)
        if self.settings.get("kasa_config") is not None:
            loss = loss + layers[0].tuner._get_kasa_loss()
        if self.settings.get("monteclora_config") is not None:
            loss = loss + layers[0].tuner._get_monteclora_loss()
        return loss

    def after_step(self, model: AdaptedModel, context: Context) -> None:
        """AdaLoRA's and AdaMSS's allocation: PEFT wants it after every step, while gradients are there."""
        layers = [cast(TunerLayer, insertion.insert) for insertion in model.anatomy.log]
        tuner = layers[0].tuner
        if not hasattr(tuner, "update_and_allocate"):
            return
        total = context.epochs * context.steps_per_epoch
        config = tuner.peft_config[ADAPTER]
        if self.tuner == "adalora" and context.step == 1:
            if config.tinit >= total - config.tfinal:
                raise PeftmarkError(
                    f"peft/adalora: tinit + tfinal must be less than the run's {total} steps: set them lower"
                )
            tuner.rankallocator.set_total_step(total)
        tuner.update_and_allocate(context.step)
        if context.step == total:
            for insert in layers:  # what AdaMSS froze on the way was trained before that, and must be saved
                insert.layer.set_adapter(ADAPTER)

    def config(self) -> dict[str, Any]:
        """Every hyper-parameter, defaults included, and PEFT's version, as plain data."""
        targets = {} if self.tuner == "ln_tuning" else {"targets": list(self.targets)}
        version = import_peft(f"method {NAMESPACE}{self.tuner}").__version__
        return {**targets, **_plain(self.settings), "peft_version": version}


def _tuners(name: str) -> dict[str, Any]:
    """The config classes of the installed PEFT's tuners, sorted by name."""
    configs = import_peft(f"method {name}").PEFT_TYPE_TO_CONFIG_MAPPING
    return {kind.value.lower(): configs[kind] for kind in sorted(configs, key=lambda kind: str(kind.value))}


def _hyperparameters(config_class: Any) -> dict[str, Any]:
    """The types of a tuner's hyper-parameters: its own fields, and `targets`."""
    hints = get_type_hints(config_class)
    names = [item.name for item in dataclasses.fields(config_class) if item.name not in SET_ELSEWHERE]
    targets = {} if config_class.__name__ == "LNTuningConfig" else {"targets": tuple[Projection, ...]}
    return {**targets, **{name: checkable(hints[name]) for name in names if name != "peft_version"}}


def checkable(hint: Any) -> Any:
    """Anything, where PEFT's type is one that msgspec cannot check: a union of a dataclass and a dict."""
    try:
        msgspec.json.Decoder(hint)
    except TypeError:
        return Any
    return hint


def _defaults(config_class: Any, hints: Mapping[str, Any]) -> dict[str, Any]:
    made = {}
    for item in dataclasses.fields(config_class):
        if item.name in hints:
            factory = item.default_factory
            made[item.name] = item.default if factory is dataclasses.MISSING else factory()
    return made


def _pattern(names: Iterable[str]) -> str:
    return "|".join(map(re.escape, names))


def _plain(value: Any) -> Any:
    """JSON data: enums by value, sets sorted, nested configs as objects."""
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(item) for item in value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _orthogonality(layers: Iterable[TunerLayer]) -> Tensor:
    """Mean Frobenius norm of ``A A^T - I`` and ``B^T B - I`` (Zhang et al. 2023, arXiv:2303.10512, equation 4).

    `peft.AdaLoraModel.forward` adds it to the loss of a language model.
    """
    factors = [(insert.layer.lora_A[ADAPTER], insert.layer.lora_B[ADAPTER]) for insert in layers]
    grams = [gram for a, b in factors for gram in (a @ a.T, b.T @ b)]
    norms = [torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)) for gram in grams]
    return torch.stack(norms).mean()


def _project_gradients(layers: Iterable[TunerLayer]) -> None:
    """OSF projects gradients by hooks on parameters, which a deep copy of the model has lost."""
    for insert in layers:
        if not insert.layer.osf_svd_params[ADAPTER]["U_low"]._backward_hooks:
            insert.layer._attach_hooks(ADAPTER)
