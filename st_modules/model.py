"""``SentenceTransformer`` with the catalog's names, and with batches planned from exact lengths."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import sentence_transformers
import torch
from sentence_transformers.sentence_transformer.modules import Normalize
from sentence_transformers.util import batch_to_device, truncate_embeddings
from torch import Tensor, nn

from st_modules.arguments import check_flag, check_integer, check_optional_integer
from st_modules.backbones import BACKBONES
from st_modules.backbones.base import Backbone, Planned, find_backbone
from st_modules.backbones.checks import check_device, refuse_backend, refuse_options
from st_modules.backbones.decoder import DecoderBackbone
from st_modules.card import write_card
from st_modules.catalog import ModelSpec, find_model, list_models, names_folder, near_miss
from st_modules.checkpoints.adapter_files import name_weights
from st_modules.checkpoints.adapters import fill_adapter, has_adapters, unload_adapters
from st_modules.checkpoints.guard import check_folder, check_modules
from st_modules.checkpoints.hub import refuse_unreachable
from st_modules.checkpoints.json_files import read_json
from st_modules.checkpoints.locate import Checkpoint, locate
from st_modules.checkpoints.lora import name_targets, read_peft_files
from st_modules.checkpoints.recognise import recognise, refuse_unnamed
from st_modules.checkpoints.saved import check_saved_model
from st_modules.checkpoints.weights import refuse_misfits
from st_modules.encode.callers import refuse_left_out_images
from st_modules.encode.checks import check_call, check_truncation
from st_modules.encode.engine import Engine, check_finite
from st_modules.encode.options import EncodeOptions
from st_modules.errors import ArgumentError, CheckpointError, UnknownModelError
from st_modules.inputs.batches import is_batch, list_inputs
from st_modules.inputs.items import parse_items
from st_modules.inputs.limits import ImageLimits, check_image_limits
from st_modules.prompts.templates import Side

# The names by which sentence-transformers finds the prompt of a side, in its order.
_SIDE_PROMPTS: Mapping[Side | None, Sequence[str]] = {"query": ["query"], "document": ["document", "passage", "corpus"]}

_Encode = TypeVar("_Encode", bound=Callable[..., Any])


def _checked(encode: _Encode) -> _Encode:
    """Return a method ``encode`` that checks its arguments before it reads or computes anything."""
    signature = inspect.signature(encode)

    @functools.wraps(encode)
    def checked(self: SentenceTransformer, *args: Any, **kwargs: Any) -> Any:
        if backbone := self._backbone:
            call = signature.bind_partial(self, *args, **kwargs)
            call.apply_defaults()
            check_call(backbone, _find_dimension(self), call.arguments)
        return encode(self, *args, **kwargs)

    return cast(_Encode, checked)


class SentenceTransformer(sentence_transformers.SentenceTransformer):
    """sentence-transformers' class, which also loads the models of this package's catalog by name.

    The catalog's short names ("gme-2b"), repository ids and ModelScope ids, with or without their owner, load those
    models, and "tiny" loads the one that ships with the package; for a folder of the same name pass "./gme-2b". So does
    a folder that has the name of a repository, in a cache of the Hub or of ModelScope too. A folder in the layout of
    one of these models that has another name is refused, for nothing in it says which recipe is its own: pass the
    model's name, and the folder as ``weights``. Any other name, and every argument that is not listed here, means what
    it means in ``sentence_transformers.SentenceTransformer``. No repository's code is ever run for the catalog's
    models: ``trust_remote_code`` has no effect on them.

    ``encode`` plans its batches from exact lengths in tokens; ``batch_size`` is the most items in a batch.

    Args:
        model_name_or_path: Name of a model, or anything that sentence-transformers loads.
        weights: Local folder with the files of the model's repository, or a model saved by ``save_pretrained``:
            used in the repository's place, without network. For Visualized-BGE and CLIP-SF the ``.pth`` file itself
            will do.
        base_weights: Local folder of the model that an adapter (VLM2Vec), a tower (Visualized-BGE) or bare weights
            (CLIP-SF) are built on, in the place of its repository.
        min_image_tokens: Fewest tokens that an image becomes; smaller images are scaled up. Models on Qwen2-VL and
            Qwen3-VL only; 256 for GME.
        max_image_tokens: Most tokens that an image becomes; larger images are scaled down. Models on Qwen2-VL
            and Qwen3-VL only; 1280 for GME. A lower bound is faster and less exact on detailed pictures.
        num_crops: Most tiles that an image is cut into, 1 to 16. Models on Phi-3-V only; 4 for VLM2Vec and 16 for DSE.
            Fewer are faster and less exact on detailed pictures.
        num_frames: How many frames of a video are embedded at most, where the model takes videos; 8 for VLM2Vec-V2, 64
            for Qwen3-VL-Embedding.
        max_length: Longest input in tokens, image tokens included; the end of longer texts is cut, which is logged.
            1800 for GME, 8192 for Qwen3-VL-Embedding, and as many as the model has positions for elsewhere.
        image_limits: What reading an image may cost; see :class:`st_modules.ImageLimits`.
        remote_images: ``False`` refuses image URLs. Takes the place of the field of ``image_limits``.
        allow_private_hosts: ``True`` also fetches images from addresses that are not public. Takes the place of the
            field of ``image_limits``.
        max_batch_tokens: Most tokens in a batch of ``encode``; a single longer item is a batch of its own. ``None``
            is 2048 on the CPU, and as many as fit the free memory on CUDA. Set it later as an attribute too.
        keep_prefixes: Whether what items begin with in common is kept from call to call, which makes single queries
            faster. It says that nobody changes the weights: see the attribute.
        **kwargs: The arguments of ``sentence_transformers.SentenceTransformer``.

    Raises:
        UnknownModelError: The name is near one of the catalog's, or that of a repository with several models.
        CheckpointError: The model's files are missing, damaged, or of another architecture, or a folder does not say
            which model it is.
        ValueError: An argument has a value that it cannot have, or is for other models than this one.

    Example:
        >>> from st_modules import SentenceTransformer
        >>> model = SentenceTransformer("tiny")
        >>> model.encode(["a red circle", {"text": "make it blue", "image": "picture.png"}]).shape
        (2, 128)
    """

    _module_classes: Mapping[str, type[nn.Module]] = {
        f"{module.__module__}.{module.__name__}": module for module in BACKBONES.values()
    }

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        *,
        weights: str | Path | None = None,
        base_weights: str | Path | None = None,
        min_image_tokens: int | None = None,
        max_image_tokens: int | None = None,
        num_crops: int | None = None,
        num_frames: int | None = None,
        max_length: int | None = None,
        image_limits: ImageLimits | None = None,
        remote_images: bool | None = None,
        allow_private_hosts: bool | None = None,
        max_batch_tokens: int | None = None,
        keep_prefixes: bool = False,
        **kwargs: Any,
    ) -> None:
        name = None if model_name_or_path is None else str(model_name_or_path)
        self._spec, weights = _resolve(name, weights) if name else (None, weights)
        self._options = _given(
            min_image_tokens=check_optional_integer("min_image_tokens", min_image_tokens),
            max_image_tokens=check_optional_integer("max_image_tokens", max_image_tokens),
            num_crops=check_optional_integer("num_crops", num_crops),
            num_frames=check_optional_integer("num_frames", num_frames),
            max_length=check_optional_integer("max_length", max_length),
            image_limits=_limits(image_limits, remote_images, allow_private_hosts),
        )
        self.max_batch_tokens = max_batch_tokens
        self._requested_device = kwargs.get("device")
        if self._spec:
            self._checkpoint = self._prepare(self._spec, weights, base_weights, kwargs)
            name = str(self._checkpoint.folder)
        else:
            if name and weights is None and os.path.exists(name):
                refuse_unnamed(Path(name), _list_architectures())
            elif name and weights is None and base_weights is None and not kwargs.get("modules"):
                cache_folder = kwargs.get("cache_folder") or os.getenv("SENTENCE_TRANSFORMERS_HOME")
                refuse_unreachable(name, kwargs, cache_folder)
            if weights is not None or base_weights is not None:
                raise ValueError(
                    f"weights= and base_weights= stand in for files of a model of the catalog, and {name!r} is not the "
                    "name of one: pass a name with them, or a folder without weights=."
                )
        super().__init__(name, **kwargs)
        _check_own_truncation(self, name, given=kwargs.get("truncate_dim"))
        self.encode_options = EncodeOptions()
        self.keep_prefixes = keep_prefixes
        if self._options and not self._backbone:
            raise ValueError(f"{', '.join(self._options)}: {name!r} is not a model that this argument applies to.")

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
    def truncate_dim(self) -> int | None:
        """How many dimensions of an embedding ``encode`` returns, the first ones; ``None`` returns all.

        Raises:
            ArgumentError: It is set to what is no number of the model's dimensions.
        """
        return self._truncate_dim

    @truncate_dim.setter
    def truncate_dim(self, value: int | None) -> None:
        # sentence-transformers sets it before the model has modules too.
        if "_modules" in vars(self) and self._backbone:
            check_truncation(value, _find_dimension(self))
        self._truncate_dim = value

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
        names = ("token", "cache_folder", "revision", "local_files_only")
        location = {name: kwargs[name] for name in names if name in kwargs}
        check_saved_model(
            functools.partial(Backbone.load_file_path, model_name_or_path, **location),
            self._module_classes.keys(),
            self.prompts.keys(),
        )
        if is_saved:
            check_modules(Path(model_name_or_path))
        if self._spec is None:
            return super()._load_modules(model_name_or_path, *args, **kwargs)
        self.model_card_data.base_model = self._spec.repo_id
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
        return [backbone, Normalize()], {}

    def _get_module_init_defaults(self, class_ref: str) -> dict[str, Any]:
        if class_ref in self._module_classes:
            _check_options(self._module_classes[class_ref], self._options)
            return {**self._options, "device": self._requested_device}
        return super()._get_module_init_defaults(class_ref)

    def add_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Add an adapter of PEFT; see ``sentence_transformers.SentenceTransformer.add_adapter``.

        Everything else of the model is frozen. That of Visualized-BGE goes to its text encoder.
        """
        backbone = self._backbone
        first = backbone is not None and not has_adapters(backbone.model)
        try:
            super().add_adapter(*args, **kwargs)
        except Exception:
            if backbone and first:  # what is left of it would be in the way of another
                unload_adapters(backbone.model)
            raise
        self._follow_adapters()

    def load_adapter(
        self, peft_model_id: str | None = None, adapter_name: str | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Load an adapter from PEFT's files; see ``sentence_transformers.SentenceTransformer.load_adapter``.

        Everything else of the model is frozen. That of Visualized-BGE goes to its text encoder.

        Raises:
            CheckpointError: A file of a folder is damaged or cannot be followed; or a weight is missing or has no
                place, and the adapter is taken out again.
        """
        given = args[0] if args else kwargs.get("peft_config")
        folder = Path(peft_model_id) if peft_model_id is not None else None
        part = self.transformers_model if self._backbone else None
        if part is not None and folder and folder.is_dir() and given is None:
            # PEFT would run the expressions of the file, and believe its sizes.
            config, _ = read_peft_files(folder)
            name_targets(config, part)
            args, kwargs = ((config, *args[1:]), kwargs) if args else (args, {**kwargs, "peft_config": config})
        outcome: Any = super().load_adapter(peft_model_id, adapter_name, *args, **kwargs)
        if self._backbone and (outcome.missing_keys or outcome.unexpected_keys):
            # transformers logs them and goes on. Among them are the magnitudes of every DoRA adapter.
            try:
                self._fill_adapter(Path(str(peft_model_id)), adapter_name or "default", outcome)
            except CheckpointError:
                self.delete_adapter(adapter_name or "default")
                raise
        self._follow_adapters()
        return outcome

    def _fill_adapter(self, folder: Path, name: str, outcome: Any) -> None:
        """Load the weights of an adapter again, by their own names, where they are in a folder."""
        if not folder.is_dir():
            found = {"missing": set(outcome.missing_keys), "unexpected": set(outcome.unexpected_keys)}
            refuse_misfits(folder, misshapen=set(), **found)
        part: Any = self.transformers_model
        fill_adapter(part, name, name_weights(*read_peft_files(folder)).weights, folder)

    def _follow_adapters(self) -> None:
        if (backbone := self._backbone) and (adapted := self.transformers_model):
            # The card of the model as it was holds no more.
            self.model_card_data.add_tags("generated_from_trainer")
            # transformers freezes the model that it adapts, which may be one part of ours.
            inside = {id(parameter) for parameter in adapted.parameters()}
            for parameter in backbone.model.parameters():
                parameter.requires_grad_(parameter.requires_grad and id(parameter) in inside)

    def save(self, path: str, *args: Any, **kwargs: Any) -> None:
        """Save the model to a folder; see ``sentence_transformers.SentenceTransformer.save_pretrained``.

        Adapters that are not merged are saved beside the weights, and loaded with them.

        Raises:
            ValueError: The adapters are in a state that no file has, or the tokenizer was changed; nothing is written.
        """
        if backbone := self._backbone:
            backbone.check_saving()
        super().save(path, *args, **kwargs)

    def _create_model_card(self, path: str, *args: Any, **kwargs: Any) -> None:
        if self._backbone is None:
            super()._create_model_card(path, *args, **kwargs)
            return
        dimension = self._backbone.get_embedding_dimension()
        with write_card(
            Path(path) / "README.md", self.model_card_data, self._spec, kept=self._model_card_text, dimension=dimension
        ):
            super()._create_model_card(path, *args, **kwargs)

    def is_singular_input(self, inputs: Any) -> Any:
        """Tell a single input from several.

        Besides lists, tuples and columns, several inputs are what has an order: series of pandas, iterators, views,
        datasets of Hugging Face.

        Raises:
            InputError: It has several inputs, and not the one order or column that they need.
        """
        if self._backbone is None or isinstance(inputs, (list, tuple)):
            return super().is_singular_input(inputs)
        return not is_batch(inputs)

    # By a wrapper, so that the overloads stay, by which type checkers know what comes back.
    encode = _checked(sentence_transformers.SentenceTransformer.encode)

    def parse(self, inputs: Sequence[Any]) -> list[Any]:
        """Check inputs before anything is embedded; images are not opened.

        Args:
            inputs: A list of what ``encode`` takes, or what it takes in the place of a list.

        Returns:
            The inputs in a form that ``encode`` takes too. Wherever they are passed on, in whatever batches, errors
            name their places in this list.

        Raises:
            InputError: Something cannot be embedded.
            ValueError: The caller is known to have left something out; the message says what to pass instead.
        """
        backbone = self._backbone
        if backbone is None:
            return list(inputs)
        values = list_inputs(inputs)
        refuse_left_out_images(values)
        return parse_items(values, backbone.image_limits, takes_video=backbone.takes_video)

    def plan(
        self,
        inputs: Sequence[Any],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        side: Side | None = None,
        max_length: int | None = None,
    ) -> list[Planned]:
        """Find out what inputs become, exact tokens among it, before anything is embedded.

        Texts are tokenised. Images are opened no further than their headers, and those on the web are fetched.

        Args:
            inputs: A list of what ``encode`` takes.
            prompt: The instruction.
            prompt_name: Name of one of the model's own.
            side: ``"query"``, ``"document"`` or neither: as ``encode_query``, ``encode_document`` or ``encode`` would
                have it.
            max_length: Longest input in tokens, in the place of the model's own.

        Returns:
            The inputs in the form that :meth:`encode_planned` takes, one each, in the same order.

        Raises:
            InputError: An input cannot be embedded; the error names its place.
            ValueError: The model is not one of this package's, or an argument has a value that it cannot have.
        """
        backbone = self._require_backbone()
        if prompt is None and prompt_name is None:
            prompt_name = next((name for name in _SIDE_PROMPTS.get(side, ()) if name in self.prompts), None)
        items = self.parse(inputs)
        rows = backbone.plan(items, self._resolve_prompt(prompt, prompt_name), side, max_length)
        return [Planned(item, row) for item, row in zip(items, rows, strict=True)]

    @torch.inference_mode()
    def encode_planned(self, planned: Sequence[Planned], batch_size: int = 32) -> np.ndarray:
        """Embed what :meth:`plan` returned, of one call or of several put together.

        Args:
            planned: The inputs, which may have instructions and sides of their own each.
            batch_size: Most items in a batch.

        Returns:
            float32 of shape (inputs, dimensions), what ``encode`` returns for each.

        Raises:
            InputError: An image or a video cannot be read, or an embedding is not finite.
            ValueError: The model is not one of this package's.
        """
        backbone = self._require_backbone()
        engine = self._make_engine(
            backbone,
            self._resolve_inference_device(None),
            batch_size=check_integer("batch_size", batch_size),
            truncate_dim=self.truncate_dim,
            normalize_embeddings=False,
            save_to_cpu=True,
        )
        embeddings = engine.encode_planned(planned)
        whole = torch.stack(embeddings) if embeddings else torch.empty(0, self.get_embedding_dimension() or 0)
        return whole.float().numpy()

    def _require_backbone(self) -> Backbone:
        if self._backbone is None:
            raise ValueError("This is for models of the catalog, and for those that were saved from one.")
        return self._backbone

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Turn inputs into the features of one batch; see :meth:`Backbone.preprocess`."""
        backbone = self._backbone
        if backbone and (inputs := list_inputs(inputs)):
            return backbone.preprocess(inputs, prompt=prompt, **kwargs)
        return super().preprocess(inputs, prompt=prompt, **kwargs)

    def _multi_process(self, inputs: Sequence[Any], *args: Any, **kwargs: Any) -> list[Any] | Tensor:
        # Parsed before they are split into chunks, so that errors name positions in the caller's list.
        return super()._multi_process(self.parse(inputs), *args, **kwargs)

    @torch.inference_mode()
    def _inference(
        self,
        inputs: list[Any],
        *,
        prompt: str | None,
        batch_size: int,
        show_progress_bar: bool,
        output_value: str | None,
        save_to_cpu: bool,
        normalize_embeddings: bool,
        truncate_dim: int | None,
        device: str | torch.device | None = None,
        **kwargs: Any,
    ) -> Any:
        backbone = self._backbone
        items = self.parse(inputs)
        if backbone is None or output_value != "sentence_embedding":
            found = super()._inference(
                items,
                prompt=prompt,
                batch_size=batch_size,
                show_progress_bar=show_progress_bar,
                output_value=output_value,
                save_to_cpu=save_to_cpu,
                normalize_embeddings=normalize_embeddings,
                truncate_dim=truncate_dim,
                device=device,
                **kwargs,
            )
            if backbone:
                check_finite(backbone, items, found)
            return found
        refuse_options({"processing_kwargs": kwargs.get("processing_kwargs")})
        device = self._resolve_inference_device(device)
        engine = self._make_engine(
            backbone,
            device,
            batch_size=batch_size,
            truncate_dim=truncate_dim,
            normalize_embeddings=normalize_embeddings,
            save_to_cpu=save_to_cpu,
            **kwargs,
        )
        embeddings = engine.encode(items, prompt, kwargs.get("task"), show_progress_bar)
        return torch.stack(embeddings) if embeddings else torch.tensor([], device=device)

    def _make_engine(
        self,
        backbone: Backbone,
        device: torch.device,
        *,
        batch_size: int,
        truncate_dim: int | None,
        normalize_embeddings: bool,
        save_to_cpu: bool,
        **kwargs: Any,
    ) -> Engine:
        if any(module.training for module in _submodules(self)):
            self.eval()

        def embed(features: dict[str, Any]) -> Tensor:
            vectors = self(batch_to_device(features, device), **kwargs)["sentence_embedding"]
            # What is not finite may be cut off below, and is all zeros where a norm was.
            whole = vectors.isfinite().all(1, keepdim=True) & vectors.any(1, keepdim=True)
            vectors = vectors.masked_fill(~whole, torch.nan)
            vectors = truncate_embeddings(vectors, truncate_dim)
            vectors = nn.functional.normalize(vectors, p=2, dim=1) if normalize_embeddings else vectors
            return vectors.cpu() if save_to_cpu else vectors

        return Engine(
            backbone,
            embed,
            device,
            self.encode_options,
            batch_size=batch_size,
            max_batch_tokens=self.max_batch_tokens,
        )

    def _resolve_inference_device(self, device: int | str | torch.device | None) -> torch.device:
        # Theirs looks at every tensor, in every call, which takes longer than tokenising a query.
        if device is None and not self._placement_is_delegated:
            present = self.device
            firsts = (next(chain(module.parameters(), module.buffers()), None) for module in self.children())
            if all(first is None or first.device == present for first in firsts):
                return present
        return super()._resolve_inference_device(device)


def register() -> None:
    """Teach the catalog's names to ``sentence_transformers.SentenceTransformer`` itself.

    For code that constructs its own, such as other libraries' integrations. Afterwards the plain class, called
    with one of the catalog's names, builds a :class:`SentenceTransformer` of this package; any other name, and
    every other class, is untouched. Calling it again changes nothing; :func:`unregister` takes it back.
    """
    plain = sentence_transformers.SentenceTransformer
    original = plain.__init__
    if hasattr(original, "_st_modules_original"):
        return

    @functools.wraps(original)
    def construct(self: Any, model_name_or_path: str | None = None, *args: Any, **kwargs: Any) -> None:
        build: Callable[..., None] = original
        if type(self) is plain and model_name_or_path and _is_of_catalog(str(model_name_or_path)):
            self.__class__ = SentenceTransformer
            build = SentenceTransformer.__init__
        build(self, model_name_or_path, *args, **kwargs)

    construct._st_modules_original = original  # type: ignore[attr-defined]
    plain.__init__ = construct


def unregister() -> None:
    """Take :func:`register` back; calling it without that changes nothing."""
    plain = sentence_transformers.SentenceTransformer
    plain.__init__ = getattr(plain.__init__, "_st_modules_original", plain.__init__)


def _find_dimension(model: SentenceTransformer) -> int:
    """Return the length of a model's embeddings before they are truncated."""
    modules: list[Any] = list(model)
    known = [module.get_embedding_dimension() for module in modules if hasattr(module, "get_embedding_dimension")]
    return known[-1]


def _check_own_truncation(model: SentenceTransformer, name: str | None, given: int | None) -> None:
    """Check how many dimensions a model that was just loaded returns: as given, or else as it was saved."""
    if model._backbone is None:
        return
    try:
        check_truncation(model.truncate_dim, _find_dimension(model))
    except ArgumentError as error:
        if given is not None:
            raise
        raise CheckpointError(f"{name}/config_sentence_transformers.json: {error}") from error


def _submodules(module: nn.Module) -> list[nn.Module]:
    """Return a module and all below it."""
    found = [module]
    for each in found:
        found += [child for child in each._modules.values() if child is not None]
    return found


def _resolve(name: str, weights: str | Path | None) -> tuple[ModelSpec | None, str | Path | None]:
    """Find the model of the catalog that a name means, and the files in its repository's place."""
    if weights is not None or not names_folder(name):
        return _find_spec(name), weights
    spec = recognise(Path(name))
    return spec, name if spec else None


def _is_of_catalog(name: str) -> bool:
    return bool(recognise(Path(name)) if names_folder(name) else find_model(name))


def _find_spec(name: str) -> ModelSpec | None:
    if spec := find_model(name):
        return spec
    if hint := near_miss(name):
        raise UnknownModelError(f"Unknown model {name!r}.{hint}")
    return None


def _list_architectures() -> dict[str, list[str]]:
    """Return the published models by the ``model_type`` that their ``config.json`` states, where they have one."""
    names: dict[str, list[str]] = {}
    for spec in list_models():
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


def _limits(
    image_limits: ImageLimits | None, remote_images: bool | None, allow_private_hosts: bool | None
) -> ImageLimits | None:
    if image_limits is not None:
        check_image_limits(image_limits)
    changes = _given(remote_images=remote_images, allow_private_hosts=allow_private_hosts)
    return dataclasses.replace(image_limits or ImageLimits(), **changes) if changes else image_limits
