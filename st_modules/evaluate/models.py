"""The catalog's models, and any other sentence-transformers model, as mteb models."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType
from tqdm.auto import tqdm

import st_modules
from st_modules.backbones.base import Backbone, find_backbone
from st_modules.catalog import ModelSpec, find_published
from st_modules.errors import name_inputs
from st_modules.evaluate.instructions import find_instruction
from st_modules.evaluate.revisions import describe_model, name_weights_in_memory, weights_revision
from st_modules.integrations.others import encode_with_others
from st_modules.model import SentenceTransformer
from st_modules.prompts.templates import TEMPLATES

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import BatchedInput
    from torch.utils.data import DataLoader

ROWS_IN_MEMORY = 256
"""How many rows with decoded pictures are held at a time."""

_LANGUAGES = {
    "Chinese": "cmn-Hans",
    "English": "eng-Latn",
    "French": "fra-Latn",
    "German": "deu-Latn",
    "Italian": "ita-Latn",
    "Spanish": "spa-Latn",
}
_CHANGES_NO_VECTOR = frozenset(
    {"device", "cache_folder", "token", "local_files_only", "keep_prefixes", "max_batch_tokens"}
)


class MTEBModel(AbsEncoder):
    """A model behind mteb's encoder protocol.

    Queries go through ``encode_query``, documents through ``encode_document``, and what is neither through ``encode``.
    A row of a task is a text, a picture, or both: an empty text beside a picture, and a picture that is ``None``, count
    as left out, so that a corpus may mix the kinds. Where the model takes videos, a row may have one likewise, of which
    the frames are read that the model embeds.

    Args:
        model: The model.
        meta: What mteb files its results under, of the model as it is now; see :meth:`update_revision`.
        instructions: Instructions in the place of those of the tasks and the model; see
            :func:`st_modules.evaluate.instructions.find_instruction` for the keys.
        label: What the model is called in tables; its name in ``meta`` by default.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        meta: ModelMeta,
        instructions: Mapping[str, str] | None = None,
        label: str | None = None,
    ) -> None:
        self.model = model
        self.mteb_model_meta = meta
        self.instructions = dict(instructions or {})
        self.label = label or self.catalog_name or str(meta.name)
        self._described = describe_model(model)

    @property
    def meta(self) -> ModelMeta:
        """What mteb files its results under, which is there."""
        return cast("ModelMeta", self.mteb_model_meta)

    @property
    def catalog_name(self) -> str | None:
        """The model's name in the catalog; ``None`` for others."""
        return self.meta.loader_kwargs.get("catalog_name")

    @property
    def version(self) -> str:
        """Which weights and options the model has: its revision, and what mteb calls its options."""
        return "/".join(filter(None, (self.meta.revision, self.meta.experiment_name)))

    def update_revision(self) -> None:
        """File results apart from earlier ones where the model has been trained, or set otherwise, since then.

        :func:`st_modules.evaluate.evaluate` does it; before a call of mteb's own it has to be done.
        """
        now = describe_model(self.model)
        if now != self._described:
            self._described = now
            self.mteb_model_meta = self.meta.model_copy(update={"revision": name_weights_in_memory(self.model)})
        options = _add_instructions(self.meta.experiment_kwargs, self.instructions)
        if options != self.meta.experiment_kwargs:
            self.mteb_model_meta = self.meta.model_copy(update={"experiment_kwargs": options})

    @property
    def _instructed(self) -> bool:
        backbone = find_backbone(self.model)
        return backbone is not None and TEMPLATES[backbone.template].task_instructions

    def instruction(self, task: TaskMetadata, side: PromptType | None) -> str | None:
        """Return the instruction for one side of a task; ``None`` is the model's default."""
        return find_instruction(
            task, side, overrides=self.instructions, prompts=self.model.prompts, instructed=self._instructed
        )

    def encode(
        self,
        inputs: DataLoader[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> np.ndarray[Any, Any]:
        """Embed the rows of a task.

        Args:
            inputs: Batches of rows, as columns ``text``, ``image`` and ``video``.
            task_metadata: The task.
            hf_split: Not used.
            hf_subset: Not used.
            prompt_type: The side.
            **kwargs: For ``SentenceTransformer.encode``: ``batch_size``, ``precision`` and others.

        Returns:
            Vectors of shape (rows, dimension), float32 unless ``precision`` says otherwise.

        Raises:
            InputError: A row cannot be embedded; the message names the task, the side and the row, counted from 0.
            ValueError: The rows have sound, or films that the model does not embed.
        """
        embed = {
            None: self.model.encode,
            PromptType.query: self.model.encode_query,
            PromptType.document: self.model.encode_document,
        }[prompt_type]
        prompt = self.instruction(task_metadata, prompt_type)
        shown = kwargs.pop("show_progress_bar", None) is not False
        what = f"{task_metadata.name}, {prompt_type.value if prompt_type else 'row'}"
        vectors: list[np.ndarray[Any, Any]] = []
        before = 0
        for items in _groups(tqdm(inputs, desc=what, disable=not shown), find_backbone(self.model)):
            with name_inputs(lambda row: f"{what} {row}", offset=before):
                vectors.append(self._embed(items, partial(embed, prompt=prompt, show_progress_bar=False, **kwargs)))
            before += len(items)
        return np.concatenate(vectors)

    def _embed(self, items: list[dict[str, Any]], encode: Callable[[list[Any]], Any]) -> Any:
        return encode(items) if find_backbone(self.model) else encode_with_others(self.model, encode, items)


def _groups(batches: Iterable[Mapping[str, Any]], backbone: Backbone | None) -> Iterator[list[dict[str, Any]]]:
    """Join batches, so that the model can plan over many rows; pictures bound how many, and films are not joined."""
    items: list[dict[str, Any]] = []
    for batch in batches:
        items += _rows(batch, backbone)
        if items and ("video" in batch or ("image" in batch and len(items) >= ROWS_IN_MEMORY)):
            yield items
            items = []
    if items:
        yield items


def _rows(batch: Mapping[str, Any], backbone: Backbone | None) -> list[dict[str, Any]]:
    takes_video = backbone is not None and backbone.takes_video
    if unread := sorted(batch.keys() & ({"audio"} if takes_video else {"audio", "video"})):
        raise ValueError(f"{', '.join(unread)}: these models embed texts and images; leave this task out.")
    columns = [name for name in ("text", "image", "video") if name in batch]
    rows = zip(*(batch[name] for name in columns), strict=True)
    items = [{name: value for name, value in zip(columns, row, strict=True) if value is not None} for row in rows]
    for item in items:
        if backbone is not None and hasattr(item.get("video"), "get_frames_at"):
            item["video"] = _read_frames(item["video"], backbone)
    return items


def _read_frames(decoder: Any, backbone: Backbone) -> Any:
    """Return the frames that are embedded of a video that torchcodec decodes, as Hugging Face's datasets have it."""
    return decoder.get_frames_at(backbone.select_frames(decoder.metadata.num_frames)).data


def model_meta(spec: ModelSpec, *, revision: str | None = None) -> ModelMeta:
    """Describe a model of the catalog to mteb.

    To run it, pass mteb what :func:`load_model` returns. ``mteb.evaluate`` loads a model from its description too, but
    asks for torchvision first where it has pictures, which neither mteb nor this package uses for them.

    Args:
        spec: The catalog's row.
        revision: What results are filed under; the catalog's revision by default, ``main`` where it has none.

    Returns:
        mteb's metadata. What the catalog does not state is ``None``.
    """
    languages = [_LANGUAGES[name] for name in spec.languages.split(", ") if name in _LANGUAGES]
    values: dict[str, Any] = {
        "loader": load_model,
        "loader_kwargs": {"catalog_name": spec.name},
        "name": _mteb_name(spec),
        "revision": revision or spec.revision or (f"st-modules-{st_modules.__version__}" if spec.path else "main"),
        "languages": languages or None,
        "max_tokens": spec.options.get("max_length"),
        "embed_dim": spec.dimension,
        "license": None if spec.licence == "unknown" else spec.licence,
        "open_weights": True,
        "framework": ["Sentence Transformers", "PyTorch", "Transformers"],
        "reference": f"https://huggingface.co/{spec.repo_id}" if spec.repo_id else None,
        "similarity_fn_name": ScoringFunction.COSINE,
        "use_instructions": TEMPLATES[spec.options["template"]].task_instructions,
        "adapted_from": spec.base_repo_id,
        "modalities": _modalities(TEMPLATES[spec.options["template"]].takes_video),
    }
    return ModelMeta.create_empty(overwrites=values)


def _modalities(takes_video: bool) -> list[str]:
    return ["text", "image", *(["video"] if takes_video else [])]


def _mteb_name(spec: ModelSpec) -> str:
    if spec.repo_id is None:
        return f"st-modules/{spec.name}"
    # One repository holds several models there, and mteb's registry tells them apart in this way too.
    return f"{spec.repo_id.partition('/')[0]}/{spec.name}" if spec.weights_file else spec.repo_id


def load_model(
    name: str,
    revision: str | None = None,
    *,
    catalog_name: str | None = None,
    weights: str | Path | None = None,
    base_weights: str | Path | None = None,
    instructions: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> MTEBModel:
    """Load a model for mteb.

    Args:
        name: A name of the catalog, or whatever else ``SentenceTransformer`` takes, such as a saved model's folder.
        revision: What to load from the Hub; the catalog's revision by default.
        catalog_name: The catalog's name, where ``name`` is mteb's.
        weights: Local files in the place of the repository; see :func:`wrap_model`.
        base_weights: Local files of what an adapter or a tower is built on.
        instructions: See :class:`MTEBModel`.
        **kwargs: For ``SentenceTransformer``: ``device``, ``max_image_tokens`` and others. mteb files results of a
            model that was loaded with options apart from those of the same model without.

    Returns:
        The model.

    Raises:
        UnknownModelError: The name is near one of the catalog's.
        CheckpointError: The model's files are missing or damaged.
    """
    name = catalog_name or name
    options = {key: value for key, value in kwargs.items() if key not in _CHANGES_NO_VECTOR}
    # The catalog's revision is no commit where the catalog has none.
    published = find_published(name) and revision in (None, revision_of(name))
    kwargs["revision"] = None if published else revision
    if weights is not None or base_weights is not None:
        kwargs.update(weights=weights, base_weights=base_weights)
    model = SentenceTransformer(name, **kwargs)
    return wrap_model(
        model,
        name,
        revision=revision_of(name, revision),
        weights=weights,
        base_weights=base_weights,
        instructions=instructions,
        options=options,
    )


def revision_of(name: str, revision: str | None = None) -> str | None:
    """Return what the results of a model are filed under that has the weights that its name stands for.

    Args:
        name: A name of the catalog, a folder, or a repository.
        revision: What was loaded from the Hub; the catalog's revision by default.

    Returns:
        The revision; ``None`` where the name does not say which weights these are.
    """
    if spec := find_published(name):
        return str(model_meta(spec, revision=revision).revision)
    return weights_revision([Path(name)]) if Path(name).is_dir() else revision


def wrap_model(
    model: SentenceTransformer,
    name: str,
    *,
    revision: str | None = None,
    weights: str | Path | None = None,
    base_weights: str | Path | None = None,
    instructions: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> MTEBModel:
    """Put a loaded model behind mteb's protocol.

    Args:
        model: The model.
        name: What it was loaded by: a name of the catalog, a folder, or a repository.
        revision: What its results are filed under, such as the repository's commit. By default a hash of the
            weights that the model has now, for it may have been trained since it was loaded.
        weights: Local files whose weights it has. Results are filed under a hash of those then, whatever ``revision``
            says.
        base_weights: Local files of what an adapter or a tower is built on.
        instructions: See :class:`MTEBModel`.
        options: What else makes its vectors other than by default; mteb files its results apart for it.

    Returns:
        The model, with metadata that has its number of parameters, its dimension and its longest input.
    """
    folders = [Path(folder) for folder in (weights, base_weights) if folder is not None]
    revision = weights_revision(folders) if folders else revision or name_weights_in_memory(model)
    spec = find_published(name)
    backbone = find_backbone(model)
    meta = model_meta(spec, revision=revision) if spec else _meta_of_other(name, revision)
    changed = {key: str(value) for key, value in (options or {}).items()}
    facts = {
        "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "embed_dim": model.get_embedding_dimension(),
        "max_tokens": model.max_seq_length,
        "experiment_kwargs": _add_instructions(changed, instructions or {}),
        "modalities": _modalities(backbone is not None and backbone.takes_video),
    }
    return MTEBModel(model, meta.model_copy(update=facts), instructions, None if spec else _label_of_other(name))


def _label_of_other(name: str) -> str:
    """Name a folder by its path, from here where it is below: many are called "model"."""
    if not Path(name).is_dir():
        return name
    folder, here = Path(name).resolve(), Path.cwd()
    return (folder.relative_to(here) if here in folder.parents else folder).as_posix()


def _add_instructions(options: Mapping[str, Any] | None, instructions: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what mteb files results apart for: the options that a model was loaded with, and its instructions."""
    told = {key: value for key, value in (options or {}).items() if key != "instructions"}
    if instructions:
        told["instructions"] = hashlib.sha256(repr(sorted(instructions.items())).encode()).hexdigest()[:12]
    return told or None


def _meta_of_other(name: str, revision: str) -> ModelMeta:
    """Describe a model that the catalog does not have: a saved folder, or another repository."""
    folder = Path(name)
    changes = {
        "name": f"local/{folder.resolve().name}" if folder.is_dir() else name,
        "revision": revision,
        "similarity_fn_name": ScoringFunction.COSINE,
        "framework": ["Sentence Transformers", "PyTorch"],
    }
    return ModelMeta.create_empty(overwrites=changes)
