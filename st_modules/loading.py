"""What the classes of models share: the catalog's names, the files behind them, and what a call saves work by."""

from __future__ import annotations

import functools
import os
from collections import OrderedDict
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch
from sentence_transformers.base.model import BaseModel
from torch import nn

from st_modules.arguments import check_flag, check_optional_integer
from st_modules.backbones import BACKBONES
from st_modules.backbones.base import Backbone, find_backbone
from st_modules.backbones.checks import check_device, refuse_backend, refuse_options
from st_modules.backbones.decoder import DecoderBackbone
from st_modules.catalog import ModelSpec, Task, find_model, list_models, names_folder, near_miss
from st_modules.checkpoints.guard import check_folder, check_modules
from st_modules.checkpoints.hub import refuse_unreachable
from st_modules.checkpoints.json_files import read_json
from st_modules.checkpoints.locate import Checkpoint, locate
from st_modules.checkpoints.recognise import recognise, refuse_unnamed
from st_modules.checkpoints.saved import check_saved_model
from st_modules.encode.options import EncodeOptions
from st_modules.errors import ArgumentError, CheckpointError, UnknownModelError
from st_modules.prompts.templates import TEMPLATES

_CALLED = {"embed": ("an embedder", "SentenceTransformer"), "rerank": ("a reranker", "CrossEncoder")}
"""What models of a task are called, and the class of this package that loads them."""


class CatalogModel(BaseModel):
    """A class of sentence-transformers that also loads the catalog's models of one task, by their names.

    It stands before one of sentence-transformers' own among the bases of a class, which calls :meth:`_find_files` and
    :meth:`_set_options` around the constructor of that.
    """

    task: ClassVar[Task]
    _spec: ModelSpec | None
    _checkpoint: Checkpoint
    _options: dict[str, Any]
    _requested_device: Any

    _module_classes: Mapping[str, type[nn.Module]] = {
        f"{module.__module__}.{module.__name__}": module for module in BACKBONES.values()
    }

    def _find_files(
        self,
        model_name_or_path: str | Path | None,
        weights: str | Path | None,
        base_weights: str | Path | None,
        options: Mapping[str, Any],
        kwargs: dict[str, Any],
    ) -> str | None:
        """Find the files of a model of the catalog; return what sentence-transformers is to load.

        Args:
            model_name_or_path: As of the class, as are the next two.
            weights: Files in the place of the repository.
            base_weights: Files in the place of what the model is built on.
            options: Options of the backbone; ``None`` values count as left out.
            kwargs: Arguments for sentence-transformers, in which those are filled in that the catalog decides.
        """
        name = None if model_name_or_path is None else str(model_name_or_path)
        self._spec, weights = _resolve(name, weights, self.task) if name else (None, weights)
        self._options = _given(**options)
        self._requested_device = kwargs.get("device")
        if self._spec:
            self._checkpoint = self._prepare(self._spec, weights, base_weights, kwargs)
            return str(self._checkpoint.folder)
        if name and weights is None and os.path.exists(name):
            refuse_unnamed(Path(name), _list_architectures(self.task), _CALLED[self.task][1])
        elif name and weights is None and base_weights is None and not kwargs.get("modules"):
            cache_folder = kwargs.get("cache_folder") or os.getenv("SENTENCE_TRANSFORMERS_HOME")
            refuse_unreachable(name, kwargs, cache_folder)
        if weights is not None or base_weights is not None:
            raise ValueError(
                f"weights= and base_weights= stand in for files of a model of the catalog, and {name!r} is not the "
                "name of one: pass a name with them, or a folder without weights=."
            )
        return name

    def _set_options(self, name: str | None, keep_prefixes: bool) -> None:
        """Finish a model that was just loaded."""
        self.encode_options = EncodeOptions()
        self.keep_prefixes = keep_prefixes
        if self._options and not self._backbone:
            raise ValueError(f"{', '.join(self._options)}: {name!r} is not a model that this argument applies to.")

    def _follow_backbone(self, backbone: Any) -> list[nn.Module]:
        """Return the modules that follow the backbone of a published model."""
        raise NotImplementedError

    def _check_task(self, folder: Path) -> None:
        """Raise ``CheckpointError`` where a saved model is one that another class loads."""
        name = read_json(folder / Backbone.config_file_name).get("template")
        template = TEMPLATES.get(name) if isinstance(name, str) else None
        found: Task = "rerank" if template and template.takes_pairs else "embed"
        if template and found != self.task:
            raise CheckpointError(f"{folder}: {_say_other(found)}.")

    @staticmethod
    def _prepare(
        spec: ModelSpec, weights: str | Path | None, base_weights: str | Path | None, kwargs: dict[str, Any]
    ) -> Checkpoint:
        """Find the model's files, and fill in the arguments that the catalog decides."""
        refuse_backend(kwargs.get("backend", "torch"))
        check_optional_integer("truncate_dim", kwargs.get("truncate_dim"))
        check_device(kwargs.get("device"))
        refuse_options({name: kwargs.get(name) for name in ("processor_kwargs", "tokenizer_kwargs")})
        checkpoint = locate(
            spec,
            weights,
            base_weights,
            revision=kwargs.pop("revision", None),
            cache_folder=kwargs.pop("cache_folder", None) or os.getenv("SENTENCE_TRANSFORMERS_HOME"),
            token=kwargs.pop("token", None),
            local_files_only=kwargs.get("local_files_only", False),
        )
        kwargs.update(trust_remote_code=False, local_files_only=True)
        kwargs["prompts"] = {**spec.prompts, **(kwargs.get("prompts") or {})}
        return checkpoint

    def _load_modules(
        self, model_name_or_path: str, *args: Any, **kwargs: Any
    ) -> tuple[list[nn.Module] | OrderedDict[str, nn.Module], dict[str, Any]]:
        is_saved = (Path(model_name_or_path) / Backbone.config_file_name).is_file()
        if is_saved:
            check_folder(Path(model_name_or_path))
            self._check_task(Path(model_name_or_path))
        names = ("token", "cache_folder", "revision", "local_files_only")
        location = {name: kwargs[name] for name in names if name in kwargs}
        check_saved_model(
            functools.partial(Backbone.load_file_path, model_name_or_path, **location),
            type(self),
            self._module_classes.keys(),
            self.prompts.keys(),
        )
        if is_saved:
            check_modules(Path(model_name_or_path))
        if self._spec is None:
            return super()._load_modules(model_name_or_path, *args, **kwargs)
        card_data: Any = self.model_card_data
        card_data.base_model = self._spec.repo_id
        backbone_class = BACKBONES[self._spec.backbone]
        saved = self._checkpoint.path / Backbone.config_file_name
        if saved.is_file():
            _check_identity(saved, self._spec)
            return super()._load_modules(model_name_or_path, *args, **kwargs)
        _check_options(backbone_class, self._options)
        try:
            backbone = backbone_class.from_checkpoint(
                self._checkpoint,
                model_kwargs=kwargs["model_kwargs"],
                config_kwargs=kwargs["config_kwargs"],
                device=self._requested_device,
                **{**self._spec.options, **self._options},
            )
        except ArgumentError as error:
            if self._options.keys() & backbone_class.config_keys:
                raise
            # The options are the catalog's, so it is the files that are others than the model's.
            folder = self._checkpoint.base or self._checkpoint.folder
            raise CheckpointError(f"{folder}: config.json or preprocessor_config.json does not fit: {error}") from error
        return [backbone, *self._follow_backbone(backbone)], {}

    def _get_module_init_defaults(self, class_ref: str) -> dict[str, Any]:
        if class_ref in self._module_classes:
            _check_options(self._module_classes[class_ref], self._options)
            return {**self._options, "device": self._requested_device}
        return super()._get_module_init_defaults(class_ref)

    def save(self, path: str, *args: Any, **kwargs: Any) -> None:
        """Save the model to a folder; see ``sentence_transformers.SentenceTransformer.save_pretrained``.

        Adapters that are not merged are saved beside the weights, and loaded with them.

        Raises:
            ValueError: The adapters are in a state that no file has, or the tokenizer was changed; nothing is written.
        """
        if backbone := self._backbone:
            backbone.check_saving()
        super().save(path, *args, **kwargs)

    @property
    def _backbone(self) -> Backbone | None:
        return find_backbone(self)

    @property
    def spec(self) -> ModelSpec | None:
        """The model's row in the catalog; ``None`` where it was not loaded as one of the catalog's."""
        return self._spec

    @property
    def max_batch_tokens(self) -> int | None:
        """Most tokens in a batch of ``encode``; ``None`` is what suits the device."""
        return self._max_batch_tokens

    @max_batch_tokens.setter
    def max_batch_tokens(self, value: int | None) -> None:
        self._max_batch_tokens = check_optional_integer("max_batch_tokens", value)

    @property
    def encode_options(self) -> EncodeOptions:
        """Which ways of saving work ``encode`` uses; they are not saved with the model."""
        return self._encode_options

    @encode_options.setter
    def encode_options(self, value: EncodeOptions) -> None:
        if not isinstance(value, EncodeOptions):
            raise TypeError(f"encode_options={value!r}: pass an EncodeOptions, as EncodeOptions(packing=False).")
        self._encode_options = value

    @property
    def keep_prefixes(self) -> bool:
        """Whether ``encode`` keeps what items begin with in common, the instruction above all, for the next calls.

        It says that the weights are fixed. By default nothing that was computed from weights outlives a call. It
        is for models on Qwen2-VL, Qwen3-VL, LLaVA-NeXT and Phi-3-V; on others, which share nothing, it stays ``False``.

        Training takes it back: it is ``False`` after ``train()``, and after a forward pass that records gradients. New
        and other weights (``load_state_dict``, casts, moves) and autocast begin anew; with adapters or hooks nothing is
        kept. What torch does not count is not seen: after writes through ``.data`` or numpy, and changes of modules'
        attributes, set it to ``False``, and to ``True`` again. Copies, those in other processes too, have it off.

        Raises:
            ArgumentError: It is set to something else than a bool.
        """
        return bool(self._backbone and self._backbone.keep_prefixes)

    @keep_prefixes.setter
    def keep_prefixes(self, value: bool) -> None:
        check_flag("keep_prefixes", value)
        if isinstance(backbone := self._backbone, DecoderBackbone):
            backbone.keep_prefixes = value

    def _stop_training(self) -> None:
        if any(module.training for module in _submodules(self)):
            self.eval()

    def _resolve_inference_device(self, device: int | str | torch.device | None) -> torch.device:
        # Theirs looks at every tensor, in every call, which takes longer than tokenising a query.
        if device is None and not self._placement_is_delegated:
            present = self.device
            firsts = (next(chain(module.parameters(), module.buffers()), None) for module in self.children())
            if all(first is None or first.device == present for first in firsts):
                return present
        return super()._resolve_inference_device(device)


def _submodules(module: nn.Module) -> list[nn.Module]:
    """Return a module and all below it."""
    found = [module]
    for each in found:
        found += [child for child in each._modules.values() if child is not None]
    return found


def _resolve(name: str, weights: str | Path | None, task: Task) -> tuple[ModelSpec | None, str | Path | None]:
    """Find the model of the catalog that a name means, and the files in its repository's place."""
    if weights is not None or not names_folder(name):
        return _find_spec(name, task), weights
    spec = recognise(Path(name))
    return (_check_spec(name, spec, task), name) if spec else (None, None)


def _find_spec(name: str, task: Task) -> ModelSpec | None:
    """Return the model of the catalog that a name means, ``None`` where it is none's.

    Raises:
        UnknownModelError: The name is near one of the catalog's, or that of a model with another task.
    """
    if spec := find_model(name):
        return _check_spec(name, spec, task)
    if hint := near_miss(name):
        raise UnknownModelError(f"Unknown model {name!r}.{hint}")
    return None


def _check_spec(name: str, spec: ModelSpec, task: Task) -> ModelSpec:
    if spec.task != task:
        raise UnknownModelError(f"{name!r}: {_say_other(spec.task)}.")
    return spec


def _say_other(task: Task) -> str:
    what, class_name = _CALLED[task]
    return f"it is {what}; load it with st_modules.{class_name}"


def _list_architectures(task: Task) -> dict[str, list[str]]:
    """Return the published models by the ``model_type`` that their ``config.json`` states, where they have one."""
    names: dict[str, list[str]] = {}
    for spec in list_models(task):
        own_config = spec.repo_id and not spec.weights_file
        if own_config and (architecture := getattr(BACKBONES[spec.backbone], "architecture", None)):
            names.setdefault(architecture.model_type, []).append(spec.name)
    return names


def _check_identity(saved: Path, spec: ModelSpec) -> None:
    found = read_json(saved)
    for key in BACKBONES[spec.backbone].identity_keys:
        if found.get(key) != spec.options[key]:
            raise CheckpointError(
                f"{saved.parent}: it was saved from a model with the {key} {found.get(key)!r}, and {spec.name} has "
                f"{spec.options[key]!r}. Load the folder by its path, or by the name of the model that it is."
            )


def _check_options(backbone: type[nn.Module], options: Mapping[str, Any]) -> None:
    known = backbone.config_keys if issubclass(backbone, Backbone) else []
    if unknown := sorted(options.keys() - {*known, "image_limits"}):
        raise ValueError(f"{', '.join(unknown)}: not an option of models on {backbone.__name__}.")


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
