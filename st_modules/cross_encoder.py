"""``CrossEncoder`` with the catalog's rerankers, whose pairs go the way of everything that is embedded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentence_transformers
import torch
from torch import Tensor, nn

from st_modules.arguments import check_integer, check_optional_integer
from st_modules.backbones.checks import refuse_options
from st_modules.backbones.qwen3_vl_reranker import Qwen3VLReranker
from st_modules.card import RERANKER_USAGE, write_card
from st_modules.encode.engine import Engine
from st_modules.errors import ArgumentError, CheckpointError
from st_modules.inputs.limits import ImageLimits, merge_limits
from st_modules.loading import CatalogModel


class CrossEncoder(CatalogModel, sentence_transformers.CrossEncoder):
    """sentence-transformers' class, which also loads the rerankers of this package's catalog by name.

    "qwen3-vl-reranker-2b", "qwen3-vl-reranker-8b", their repositories, and folders that have the names of these load
    those models; names, folders and ``weights`` are told apart as by :class:`st_modules.SentenceTransformer`. Any other
    name, and every argument that is not listed here, means what it means in ``sentence_transformers.CrossEncoder``. No
    repository's code is ever run for the catalog's models: ``trust_remote_code`` has no effect on them.

    A pair is a query and a document, each of which is whatever ``SentenceTransformer.encode`` takes: a text, an image,
    a video, or a dictionary of these. A score is between 0 and 1: the probability of the answer yes beside that of no.
    The instruction is ``prompt``, or the system message of a query.

    Args:
        model_name_or_path: Name of a model, or anything that sentence-transformers loads.
        weights: Local folder with the files of the model's repository, or a model saved by ``save_pretrained``: used in
            the repository's place, without network.
        min_image_tokens: Fewest tokens that an image becomes; smaller images are scaled up. 4.
        max_image_tokens: Most tokens that an image becomes; larger images are scaled down. 1800.
        num_frames: How many frames of a video are read at most; 64.
        max_length: Longest pair in tokens, image tokens included; the end of longer documents is cut, which is logged.
            10245.
        image_limits: What reading an image may cost; see :class:`st_modules.ImageLimits`.
        remote_images: ``False`` refuses image URLs. Takes the place of the field of ``image_limits``.
        allow_private_hosts: ``True`` also fetches images from addresses that are not public. Takes the place of the
            field of ``image_limits``.
        max_batch_tokens: Most tokens in a batch; as of :class:`st_modules.SentenceTransformer`.
        keep_prefixes: Whether what pairs begin with in common is kept from call to call; likewise.
        **kwargs: The arguments of ``sentence_transformers.CrossEncoder``.

    Raises:
        UnknownModelError: The name is near one of the catalog's, or that of an embedder.
        CheckpointError: The model's files are missing, damaged, or of another architecture, or a folder does not say
            which model it is.
        ValueError: An argument has a value that it cannot have, or is for other models than this one.

    Example:
        >>> from st_modules import CrossEncoder
        >>> model = CrossEncoder("qwen3-vl-reranker-2b")
        >>> model.rank("two green stars", ["a red circle", {"image": "stars.png"}])
        [{'corpus_id': 1, 'score': 0.97}, {'corpus_id': 0, 'score': 0.02}]
    """

    task = "rerank"

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        *,
        weights: str | Path | None = None,
        min_image_tokens: int | None = None,
        max_image_tokens: int | None = None,
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
            "num_frames": check_optional_integer("num_frames", num_frames),
            "max_length": check_optional_integer("max_length", max_length),
            "image_limits": merge_limits(image_limits, remote_images, allow_private_hosts),
        }
        self.max_batch_tokens = max_batch_tokens
        name = self._find_files(model_name_or_path, weights, None, options, kwargs)
        super().__init__(name, **kwargs)
        self._check_modules(kwargs.get("num_labels"))
        if self._backbone is None and max_length is not None:
            # Another library's model has one too, and it was not known before whose it is.
            self.max_seq_length = self._options.pop("max_length")
        self._set_options(name, keep_prefixes)

    def _follow_backbone(self, backbone: Qwen3VLReranker) -> list[nn.Module]:
        return [backbone.make_score()]

    def _check_modules(self, num_labels: int | None) -> None:
        if (backbone := self._backbone) is None:
            return
        if num_labels not in (None, 1):
            raise ArgumentError(f"num_labels={num_labels!r}: this model has one score a pair. Leave it out.")
        modules: list[Any] = list(self)
        if modules[1].in_features != (dimension := backbone.get_embedding_dimension()):
            raise CheckpointError(
                f"The model has vectors of {dimension} dimensions, and its score is one of {modules[1].in_features}. "
                "Copy the whole folder of one model."
            )

    def _create_model_card(self, path: str, *args: Any, **kwargs: Any) -> None:
        if self._backbone is None:
            super()._create_model_card(path, *args, **kwargs)
            return
        data: Any = self.model_card_data
        with write_card(Path(path) / "README.md", data, self._spec, kept=self._model_card_text, usage=RERANKER_USAGE):
            super()._create_model_card(path, *args, **kwargs)

    def parse(self, inputs: Sequence[Any]) -> list[Any]:
        """Check pairs before anything is scored; images are not opened.

        Args:
            inputs: A list of what ``predict`` takes.

        Returns:
            The pairs in a form that ``predict`` takes too; errors name their places in this list.

        Raises:
            InputError: Something is no pair, or a side cannot be read.
        """
        return list(inputs) if self._backbone is None else self._backbone.parse(inputs)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Turn pairs into the features of one batch; see :meth:`Backbone.preprocess`."""
        if self._backbone is None or not inputs:
            return super().preprocess(inputs, prompt=prompt, **kwargs)
        if all(isinstance(each, str) for each in inputs):
            # Of a column of training data by itself sentence-transformers' card says how long its texts are.
            return dict(self.tokenizer(list(inputs), padding=True, return_tensors="pt"))
        return self._backbone.preprocess(inputs, prompt=prompt, **kwargs)

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
        activation_fn: Any,
        apply_softmax: bool | None,
        device: str | torch.device | None = None,
        **kwargs: Any,
    ) -> Tensor:
        backbone = self._backbone
        if backbone is None:
            return super()._inference(
                inputs,
                prompt=prompt,
                batch_size=batch_size,
                show_progress_bar=show_progress_bar,
                activation_fn=activation_fn,
                apply_softmax=apply_softmax,
                device=device,
                **kwargs,
            )
        # A softmax is for models of several labels, here as there.
        refuse_options(kwargs)
        check_integer("batch_size", batch_size)
        device = self._resolve_inference_device(device)
        self._stop_training()

        def score(features: dict[str, Any]) -> Tensor:
            return self(features)["scores"]

        engine = Engine(
            backbone,
            score,
            device,
            self.encode_options,
            batch_size=batch_size,
            max_batch_tokens=self.max_batch_tokens,
        )
        found = engine.encode(self.parse(inputs), prompt, None, show_progress_bar)
        if not found:
            return torch.tensor([], device=device)
        # In the precision of the model, scores that are near to each other would be the same.
        scores = torch.stack(found).float()
        return (scores if activation_fn is None else activation_fn(scores)).squeeze(-1)
