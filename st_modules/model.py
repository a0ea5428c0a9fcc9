"""``SentenceTransformer`` with the catalog's names, and with batches planned from exact lengths."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import sentence_transformers
import torch
from sentence_transformers.sentence_transformer.modules import Normalize
from sentence_transformers.util import truncate_embeddings
from torch import Tensor, nn

from st_modules.arguments import check_integer, check_optional_integer, check_truncation
from st_modules.backbones.base import Backbone
from st_modules.backbones.checks import refuse_options
from st_modules.backbones.rows import Planned
from st_modules.card import EMBEDDER_USAGE, write_card
from st_modules.checkpoints.adapter_files import name_weights
from st_modules.checkpoints.adapters import fill_adapter, has_adapters, unload_adapters
from st_modules.checkpoints.lora import name_targets, read_peft_files
from st_modules.checkpoints.weights import refuse_misfits
from st_modules.encode.callers import refuse_left_out_images
from st_modules.encode.checks import check_call
from st_modules.encode.engine import Engine, check_finite
from st_modules.errors import ArgumentError, CheckpointError
from st_modules.inputs.batches import is_batch, list_inputs
from st_modules.inputs.items import parse_items
from st_modules.inputs.limits import ImageLimits, merge_limits
from st_modules.loading import CatalogModel
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


class SentenceTransformer(CatalogModel, sentence_transformers.SentenceTransformer):
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

    task = "embed"

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
        options = {
            "min_image_tokens": check_optional_integer("min_image_tokens", min_image_tokens),
            "max_image_tokens": check_optional_integer("max_image_tokens", max_image_tokens),
            "num_crops": check_optional_integer("num_crops", num_crops),
            "num_frames": check_optional_integer("num_frames", num_frames),
            "max_length": check_optional_integer("max_length", max_length),
            "image_limits": merge_limits(image_limits, remote_images, allow_private_hosts),
        }
        self.max_batch_tokens = max_batch_tokens
        name = self._find_files(model_name_or_path, weights, base_weights, options, kwargs)
        super().__init__(name, **kwargs)
        _check_own_truncation(self, name, given=kwargs.get("truncate_dim"))
        self._set_options(name, keep_prefixes)

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

    def _follow_backbone(self, backbone: Backbone) -> list[nn.Module]:
        return [Normalize()]

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

    def _create_model_card(self, path: str, *args: Any, **kwargs: Any) -> None:
        if self._backbone is None:
            super()._create_model_card(path, *args, **kwargs)
            return
        usage = EMBEDDER_USAGE.replace("{dimension}", str(self._backbone.get_embedding_dimension()))
        with write_card(
            Path(path) / "README.md", self.model_card_data, self._spec, kept=self._model_card_text, usage=usage
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
        self._stop_training()

        def embed(features: dict[str, Any]) -> Tensor:
            vectors = self(features, **kwargs)["sentence_embedding"]
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
