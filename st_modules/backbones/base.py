"""The contract of a backbone: a sentence-transformers input module that plans before it touches pixels."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from sentence_transformers.base.modality_types import Modality
from sentence_transformers.base.modules import InputModule
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import Self

from st_modules.arguments import check_choice, check_integer, check_optional_integer
from st_modules.backbones.checks import (
    check_device,
    check_prompt,
    check_side,
    refuse_backend,
    refuse_options,
    refuse_videos,
)
from st_modules.backbones.precision import loading_kwargs
from st_modules.backbones.prefixes import PrefixStates
from st_modules.checkpoints.adapter_files import read_adapters, write_adapters
from st_modules.checkpoints.adapters import Adapters, collect_adapters, install_adapters, without_adapters
from st_modules.checkpoints.configuration import CONFIG, load_config
from st_modules.checkpoints.fields import Kind, check_fields
from st_modules.checkpoints.guard import check_folder
from st_modules.checkpoints.image_processors import PREPROCESSOR_CONFIG, describe_statistics, load_image_processor
from st_modules.checkpoints.json_files import read_json
from st_modules.checkpoints.locate import ADAPTER_CONFIG, SAVED_OPTIONS, Checkpoint, lone_adapter
from st_modules.checkpoints.lora import load_adapted
from st_modules.checkpoints.weights import (
    UNUSED_WEIGHTS,
    check_model_type,
    hide_progress_bar,
    load_pretrained,
)
from st_modules.errors import ArgumentError, CheckpointError
from st_modules.inputs.images import ImageSource, read_within_budget
from st_modules.inputs.items import Item, parse_items
from st_modules.inputs.limits import ImageLimits, check_image_limits
from st_modules.inputs.videos import VideoSource
from st_modules.prompts.long_texts import most_characters
from st_modules.prompts.templates import TEMPLATES, Image, Segment, Side, Video
from st_modules.prompts.tokenizer import SegmentTokenizer

logger = logging.getLogger(__name__)

Visual: TypeAlias = ImageSource | VideoSource
"""What is seen of an item."""


@dataclass(frozen=True)
class Row:
    """One item, ready but for its pixels.

    Attributes:
        ids: Token ids, with those of the images and the video that are read among the text.
        visuals: The images and the video, in the row's order, not opened beyond their headers.
        trimmed: Whether the end of the item's text was cut to fit ``max_length``.
        length: Tokens that the row costs, with those of images that are read apart from the text.
        constant: How many of the first ids are the same for every item that has the same instruction, and mean the
            same to the model before whatever comes next.
        prefix: Ids before those of the row, which are run once for every row that has them.
    """

    ids: list[int]
    visuals: tuple[Visual, ...]
    trimmed: bool
    length: int
    constant: int
    prefix: tuple[int, ...] = ()


@dataclass(frozen=True)
class Planned:
    """An item and the row that it becomes.

    Attributes:
        item: The item.
        row: Its row.
    """

    item: Item
    row: Row


class Towers(NamedTuple):
    """Names of a backbone's parts, by which adapters find the layers to adapt.

    Attributes:
        language: The language model, or the text tower.
        vision: The vision tower.
    """

    language: str
    vision: str


@dataclass(frozen=True)
class Architecture:
    """The classes of transformers that a backbone is made of.

    Attributes:
        model_type: What ``config.json`` must state.
        config: Class of the configuration.
        published: Class whose ``from_pretrained`` knows every published layout of the weights.
        model: Class of what runs, which is also what is saved.
        tokenizer: Class for a folder without ``tokenizer.json``.
        image_processor: The class that runs on Pillow, named so that no other installed backend is picked.
        parts: What a part of ``config.json`` may state as its ``model_type``, where transformers would take any.
        names: Names of weights in published files, as expressions, and what stands in their place in ``model``, where
            transformers does not know it.
    """

    model_type: str
    config: type[PreTrainedConfig]
    published: type[PreTrainedModel]
    model: type[PreTrainedModel]
    tokenizer: type[PreTrainedTokenizerBase]
    image_processor: type[BaseImageProcessor]
    parts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


class Backbone(InputModule):
    """Base class of the modules that turn items into one vector each.

    A subclass names its ``architecture`` and its ``towers``, adds its own constructor arguments to ``config_keys``,
    which are saved with the model (``identity_keys`` are those that tell two models apart), checks what was saved of
    them in :meth:`check_options`, and implements
    :meth:`get_embedding_dimension`, :meth:`image_tokens`, :meth:`pixel_features` and :meth:`forward`. Inference and
    training share them: ``preprocess`` is ``collate(plan(items))``.

    Args:
        model: What runs.
        segment_tokenizer: Turns rendered items into token ids.
        image_processor: Turns images into the model's pixel features.
        template: Name of the layout in ``st_modules.prompts.templates``.
        positions: Tokens that the model has positions for.
        max_length: Longest row in tokens; ``None`` is as long as ``positions`` allows.
        image_limits: What an image may cost; see :class:`st_modules.ImageLimits`.
    """

    config_file_name = SAVED_OPTIONS
    config_keys: list[str] = ["template", "max_length"]
    identity_keys: ClassVar[list[str]] = ["template"]
    has_token_embeddings = True
    architecture: ClassVar[Architecture]
    towers: ClassVar[Towers]
    model: Any
    image_processor: Any

    def __init__(
        self,
        model: PreTrainedModel | nn.Module,
        segment_tokenizer: SegmentTokenizer,
        image_processor: BaseImageProcessor,
        template: str,
        positions: int,
        max_length: int | None,
        image_limits: ImageLimits | None,
    ) -> None:
        super().__init__()
        self.model = model
        self.image_processor = image_processor
        self.segment_tokenizer = segment_tokenizer
        self.template = template
        self.positions = positions
        self.image_limits = ImageLimits() if image_limits is None else image_limits
        self.max_length = max_length

    @property
    def modalities(self) -> list[Modality]:
        """What the module embeds; "message" is what lets a batch mix the others."""
        videos: list[Modality] = ["video", ("text", "video")] if self.takes_video else []
        return ["text", "image", ("image", "text"), *videos, "message"]

    @property
    def takes_video(self) -> bool:
        """Whether the model embeds videos."""
        return TEMPLATES[self.template].takes_video

    @property
    def processor(self) -> BaseImageProcessor:
        """The image processor."""
        return self.image_processor

    @property
    def packs(self) -> bool:
        """Whether :meth:`forward` takes rows laid end to end, so that a batch has no padding."""
        return False

    @property
    def keep_prefixes(self) -> bool:
        """Whether what rows begin with is kept from call to call."""
        return False

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; tokens that are added to it (``add_tokens``) are read in texts from the next call on."""
        return self.segment_tokenizer.tokenizer

    @tokenizer.setter
    def tokenizer(self, value: object) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        raise ValueError(
            "The tokenizer cannot be replaced by another. Add tokens to it, or change the files of a saved model and "
            "load it again."
        )

    def prefix_states(self) -> PrefixStates:
        """Return where the keys and values of what the rows of a call begin with are looked up, and go."""
        return PrefixStates()

    def reads_instruction(self, side: Side | None, has_text: bool = True) -> bool:
        """Whether an instruction changes anything about items of a side; see :class:`Template`."""
        return TEMPLATES[self.template].reads_instruction(side, has_text)

    @property
    def max_length(self) -> int:
        """Longest row in tokens; longer rows lose the end of their user text. ``None`` is as long as positions allow.

        Raises:
            ArgumentError: It is set to what is no length, or to more than the model has positions.
        """
        return self._max_length

    @max_length.setter
    def max_length(self, value: int | None) -> None:
        self._max_length = self.positions if value is None else self._check_length(value)

    @property
    def max_seq_length(self) -> int:
        """Longest row in tokens; sentence-transformers' name for ``max_length``."""
        return self.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        self.max_length = value

    @property
    def image_limits(self) -> ImageLimits:
        """What an image may cost.

        Raises:
            ArgumentError: It is set to something else than an ``ImageLimits``.
        """
        return self._image_limits

    @image_limits.setter
    def image_limits(self, value: ImageLimits) -> None:
        check_image_limits(value)
        self._image_limits = value

    def __setattr__(self, name: str, value: Any) -> None:
        # Options are checked whenever they are set, by the rules for those that were saved.
        if name in self.config_keys:
            known = {key: getattr(self, key) for key in self.config_keys if hasattr(self, key)}
            self.check_options({**known, name: value})
        super().__setattr__(name, value)

    @abstractmethod
    def get_embedding_dimension(self) -> int:
        """Return the length of an embedding, read from the weights."""

    @abstractmethod
    def image_tokens(self, image: ImageSource) -> int:
        """Return how many tokens an image becomes, from its size alone.

        Raises:
            ImageError: The image cannot be read, or is too elongated for the model.
        """

    @abstractmethod
    def pixel_features(self, image: ImageSource) -> Mapping[str, torch.Tensor]:
        """Read an image in the way of the model's authors, and return the features that :meth:`forward` needs of it.

        Raises:
            ImageError: The image cannot be read.
        """

    def select_frames(self, total: int) -> list[int]:
        """Return the numbers of the frames, from 0, that are embedded of a video that is a list of so many."""
        raise NotImplementedError

    def video_tokens(self, video: VideoSource) -> int:
        """Return how many tokens a video becomes, from the number and the size of its frames alone.

        Raises:
            InputError: The video cannot be read, or its frames are not of one size.
        """
        raise NotImplementedError

    def video_features(self, video: VideoSource, *, fast: bool) -> Mapping[str, torch.Tensor]:
        """Read the frames of a video, and return the features that :meth:`forward` needs of them.

        Args:
            video: The video.
            fast: Whether to read them in the way that costs least, as :meth:`fast_pixel_features` does.

        Raises:
            InputError: The video cannot be read.
        """
        raise NotImplementedError

    def video_times(self, video: VideoSource) -> list[float]:
        """Return at how many seconds each step of a video is, where the layout has a place for each.

        Raises:
            InputError: The video cannot be read, or its file does not say when its frames are shown.
        """
        raise NotImplementedError

    def count_tokens(self, visual: Visual) -> int:
        """Return how many tokens an image or a video becomes; see :meth:`image_tokens` and :meth:`video_tokens`."""
        return self.video_tokens(visual) if isinstance(visual, VideoSource) else self.image_tokens(visual)

    def read_visual(self, visual: Visual, *, fast: bool = False) -> Mapping[str, torch.Tensor]:
        """Return the features of an image or a video, once the process's budget has room for their pixels.

        Args:
            visual: The image or the video.
            fast: Whether they are for inference alone, and read in the way that costs least.

        Raises:
            InputError: It cannot be read.
        """
        if isinstance(visual, VideoSource):
            return read_within_budget(partial(self.video_features, fast=fast), visual)
        return read_within_budget(self.fast_pixel_features if fast else self.pixel_features, visual)

    def fast_pixel_features(self, image: ImageSource) -> Mapping[str, torch.Tensor]:
        """Read an image in the way that costs least, for inference alone; vectors are the same either way."""
        return self.pixel_features(image)

    def join_pixels(self, images: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Join the features of a batch's images, one after the other, and likewise those of its videos."""
        names = dict.fromkeys(name for image in images for name in image)
        return {name: torch.cat([image[name] for image in images if name in image]) for name in names}

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Check options that were saved with a model, as far as they can be without its weights.

        Args:
            options: The constructor's keyword arguments that are among ``config_keys``.

        Raises:
            ArgumentError: One is not among them, or has a value that it cannot have.
        """
        if unknown := sorted(options.keys() - cls.config_keys):
            raise ArgumentError(
                f"{', '.join(unknown)}: no option of {cls.__name__}; known are {sorted(cls.config_keys)}."
            )
        check_choice("template", options.get("template"), TEMPLATES)
        check_optional_integer("max_length", options.get("max_length"))

    @classmethod
    def config_fields(cls, config: Any) -> tuple[dict[str, Any], dict[str, Kind]]:
        """Return fields of a configuration that transformers takes at its word, and what each can hold."""
        return {}, {}

    @classmethod
    def image_settings(cls, config: Any) -> dict[str, Kind]:
        """Return what a model with a configuration needs of its image processor; a size is ``crop_size.height``."""
        return {}

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        model_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        device: str | None = None,
        **options: Any,
    ) -> Self:
        """Build the module from files in the upstream's layout, or from a folder that :meth:`save` wrote.

        Args:
            checkpoint: Where the files are.
            model_kwargs: For ``from_pretrained``: ``dtype``, ``attn_implementation``, ``device_map`` and others.
            config_kwargs: Values that take the place of those in ``config.json``.
            device: Where the model will run, which decides the precision where ``model_kwargs`` does not.
            **options: The constructor's keyword arguments.

        Raises:
            CheckpointError: The files do not hold exactly this architecture's weights.
        """
        return cls._build(checkpoint, loading_kwargs(model_kwargs, device), config_kwargs or {}, options)

    @classmethod
    def _build(
        cls,
        checkpoint: Checkpoint,
        model_kwargs: dict[str, Any],
        config_kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Self:
        classes = cls.architecture
        folder = checkpoint.base or checkpoint.path
        check_model_type(folder, classes.model_type)
        config = cls.read_config(folder, config_kwargs, quantised="quantization_config" in model_kwargs)
        kwargs = {"optional": UNUSED_WEIGHTS, "config": config, **model_kwargs}
        if classes.names:
            kwargs["key_mapping"] = {**classes.names, **(kwargs.get("key_mapping") or {})}
        model = cls._load_model(checkpoint, **kwargs)
        template = TEMPLATES[options["template"]]
        return cls(
            model.base_model,
            SegmentTokenizer(
                checkpoint.folder_of("tokenizer_config.json"),
                classes.tokenizer,
                template.render,
                normalised=template.normalises,
                takes_video=template.takes_video,
            ),
            cls._load_image_processor(checkpoint, config),
            **options,
        )

    @classmethod
    def _load_model(cls, checkpoint: Checkpoint, **kwargs: Any) -> PreTrainedModel:
        """Load what runs; ``kwargs`` are those of :func:`load_pretrained`."""
        classes = cls.architecture
        if checkpoint.base:
            return load_adapted(classes.published, checkpoint.base, checkpoint.path, **kwargs)
        return load_pretrained(classes.model if checkpoint.saved else classes.published, checkpoint.path, **kwargs)

    @classmethod
    def _load_image_processor(cls, checkpoint: Checkpoint, config: Any) -> BaseImageProcessor:
        return load_image_processor(
            cls.architecture.image_processor, checkpoint.folder_of(PREPROCESSOR_CONFIG), cls.image_settings(config)
        )

    @classmethod
    def read_config(cls, folder: Path, changes: Mapping[str, Any], *, quantised: bool) -> Any:
        """Read the configuration of a model from its folder; see :func:`load_config`."""
        classes = cls.architecture
        config = load_config(classes.config, folder, changes, classes.parts, quantised=quantised)
        check_fields(folder / CONFIG, *cls.config_fields(config))
        return config

    def plan(
        self, items: Sequence[Item], prompt: str | None = None, side: Side | None = None, max_length: int | None = None
    ) -> list[Row]:
        """Render and tokenise items; images and videos are opened no further than their headers.

        Args:
            items: What to embed.
            prompt: The instruction; an item's own instruction takes its place.
            side: ``"query"``, ``"document"`` or neither.
            max_length: Longest row in tokens, in the place of the module's own.

        Returns:
            One row an item, in the same order.

        Raises:
            ArgumentError: The prompt, the side or the length is none.
            CheckpointError: The tokenizer has tokens that the model has no embedding for, and a text has one of them.
            InputError: An item does not fit, or cannot be read.
        """
        check_side(side)
        check_prompt(prompt)
        if not self.takes_video:
            refuse_videos(items)
        embeddings = self._follow_tokenizer()
        # An instruction is never trimmed: a longer one is an error where it is read, and no row needs a copy of it.
        longest = most_characters(self.positions) + 1
        prompt = prompt[:longest] if prompt else prompt
        instructions = [item.instruction[:longest] if item.instruction else prompt for item in items]
        rendered = [self._render(item, each, side) for item, each in zip(items, instructions, strict=True)]
        visuals = [[segment for segment in row if isinstance(segment, (Image, Video))] for row in rendered]
        counts = [self._count_segments(row) for row in visuals]
        tokenized = self.segment_tokenizer(
            rendered,
            counts,
            [item.place for item in items],
            [self._limit(max_length, bool(row)) for row in visuals],
        )
        if (highest := max((max(row.ids, default=0) for row in tokenized), default=0)) >= embeddings:
            raise CheckpointError(
                f"The tokenizer reads a token of the number {highest}, and the model has embeddings for {embeddings}. "
                "Use the tokenizer files of the model's repository."
            )
        return [
            Row(
                ids=row.ids,
                visuals=tuple(each.source for each in segments if isinstance(each, Image) or each.part == 0),
                trimmed=row.trimmed,
                length=len(row.ids) + sum(n for each, n in zip(segments, tokens, strict=True) if each.token is None),
                constant=row.constant,
            )
            for row, segments, tokens in zip(tokenized, visuals, counts, strict=True)
        ]

    def _render(self, item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
        template = TEMPLATES[self.template]
        row = template.render(item, instruction, side)
        if item.video is None or template.divide is None:
            return row
        return template.divide(row, self.video_times(item.video))

    def _count_segments(self, segments: Sequence[Image | Video]) -> list[int]:
        """Return how many tokens stand in each place of a row; a video is asked once for all of its parts."""
        counts: list[int] = []
        for segment in segments:
            if isinstance(segment, Video) and segment.part:
                counts.append(counts[-1])
            else:
                count = self.count_tokens(segment.source)
                counts.append(count // segment.parts if isinstance(segment, Video) else count)
        return counts

    def _follow_tokenizer(self) -> int:
        """Read tokens that were added to the tokenizer; return how many tokens the model has embeddings for."""
        language: Any = self.model.get_submodule(self.towers.language)
        embeddings: int = language.get_input_embeddings().weight.shape[0]
        self.segment_tokenizer.follow_changes(
            embeddings, f"model[0].model.{self.towers.language}.resize_token_embeddings"
        )
        return embeddings

    def _limit(self, max_length: int | None, has_image: bool) -> int:
        """Return the most tokens that a row may have."""
        return self.max_length if max_length is None else self._check_length(max_length)

    def _check_length(self, max_length: int) -> int:
        length = check_integer("max_length", max_length)
        if length > self.positions:
            raise ArgumentError(f"max_length={length}: pass less, for this model has {self.positions} positions.")
        return length

    def collate(
        self, rows: Sequence[Row], pixels: Iterable[Mapping[str, torch.Tensor]] | None = None
    ) -> dict[str, Any]:
        """Join rows, padded on the right, to a batch of features for :meth:`forward`.

        Args:
            rows: What :meth:`plan` returned.
            pixels: The features of their images and videos, in order; what :meth:`read_visual` returns where it is left
                out.

        Returns:
            ``input_ids`` and ``attention_mask`` of shape (rows, longest row), int64; ``num_images_per_sample`` of
            shape (rows,), int64, and ``num_videos_per_sample`` likewise where the model takes videos; and where there
            are images or videos what :meth:`join_pixels` returns. Every tensor is on the CPU.
        """
        if pixels is None:
            pixels = map(self.read_visual, visuals_of(rows))
        ids = [torch.tensor(row.ids, dtype=torch.long) for row in rows]
        features: dict[str, Any] = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.segment_tokenizer.pad_id),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            "num_images_per_sample": _count_visuals(rows, ImageSource),
        }
        if self.takes_video:
            features["num_videos_per_sample"] = _count_visuals(rows, VideoSource)
        if found := list(pixels):
            features.update(self.join_pixels(found))
        return features

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        task: Side | None = None,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """Turn inputs of any accepted form into the features of one batch.

        Args:
            inputs: Items as ``encode`` takes them.
            prompt: The instruction.
            task: The side, which sentence-transformers calls so: ``"query"``, ``"document"`` or neither.
            max_length: Longest row in tokens, in the place of the module's own.
            **kwargs: ``processing_kwargs`` and others of sentence-transformers, which must be empty.

        Returns:
            Features for :meth:`forward`; every tensor is on the CPU.

        Raises:
            InputError: An input cannot be embedded.
            ValueError: An option that this module does not have was passed, or one has no value that it can have.
        """
        refuse_options(kwargs)
        items = parse_items(inputs, self.image_limits, takes_video=self.takes_video)
        rows = self.plan(items, prompt, task, max_length)
        self.report_trimmed(rows, max_length)
        return self.collate(rows)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """Cast or move the module; buffers are moved and never cast, as when it is loaded in another precision.

        They are tables and frequencies of positions, and long texts lose their order where these are rounded.
        """
        before = {
            (module, name): buffer
            for module in self.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        }
        super()._apply(fn, recurse)
        for (module, name), buffer in before.items():
            if (after := module._buffers[name]) is not None and after.dtype != buffer.dtype:
                module._buffers[name] = buffer.to(after.device)
        return self

    def explain_not_finite(self) -> str:
        """Say what is likely the cause of an embedding that is not finite, and what to do about it."""
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                return f"the model's weight {name} is not finite: load the model again, from files that are whole"
        if problem := describe_statistics(self.image_processor):
            return f"the image processor's {problem.removesuffix('.')}"
        if next(self.model.parameters()).dtype == torch.float16:
            return "some number is too large for float16: load the model with the dtype bfloat16 or float32"
        return "the weights are finite, and what they compute is too large or too small: load the model's own weights"

    def report_trimmed(self, rows: Sequence[Row], max_length: int | None = None) -> None:
        """Log how many rows lost the end of their text, where any did."""
        if count := sum(row.trimmed for row in rows):
            logger.warning(
                "%d of %d items are longer than max_length=%d tokens: the end of their text was cut.",
                count,
                len(rows),
                max_length or self.max_length,
            )

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write the weights as safetensors, the tokenizer, the image processor and the options to a folder.

        Adapters that are not merged are written beside the weights, and loaded with them.

        Raises:
            ValueError: The adapters are in a state that no file has, or the tokenizer was changed; nothing is written.
        """
        adapters = self.check_saving()
        self.save_weights(output_path)
        write_adapters(adapters, Path(output_path))
        self.save_tokenizer(output_path)
        self.image_processor.save_pretrained(output_path)
        self.save_config(output_path)

    def check_saving(self) -> Adapters | None:
        """Return the adapters that :meth:`save` writes.

        Raises:
            ValueError: The adapters are in a state that no file has, or the tokenizer was changed.
        """
        self._follow_tokenizer()
        self.segment_tokenizer.check_unchanged()
        return collect_adapters(self.model)

    def save_weights(self, output_path: str) -> None:
        """Write the weights and ``config.json`` to a folder, those of adapters left out."""
        with hide_progress_bar():
            without_adapters(self.model).save_pretrained(output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a module that :meth:`save` wrote, from a folder or from the Hub.

        ``init_defaults`` are the options and the device that the user asked for, so here they win over the saved
        ones.

        Raises:
            CheckpointError: The files do not hold exactly this architecture's weights, or a saved option has a value
                that it cannot have.
        """
        refuse_options({"processor_kwargs": kwargs.get("processor_kwargs")})
        refuse_backend(kwargs.get("backend", "torch"))
        given = init_defaults or {}
        check_device(given.get("device"))
        location = {
            "subfolder": subfolder,
            "token": token,
            "cache_folder": cache_folder,
            "revision": revision,
            "local_files_only": local_files_only,
        }
        found = cls.load_dir_path(model_name_or_path, **location)
        if found is None:
            raise CheckpointError(
                f"{model_name_or_path}/modules.json: it names the folder {subfolder!r}, and has none."
            )
        folder = Path(found)
        check_folder(folder)
        if (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file():
            raise lone_adapter(folder)
        adapters = read_adapters(folder)
        if adapters is None and (folder / ADAPTER_CONFIG).is_file():
            raise CheckpointError(
                f"{folder}: an adapter lies beside the model, and no adapters.json that says whether it is its own. "
                "Move the adapter to a folder of its own, and load it with st_modules.train.load_adapter."
            )
        path = folder / SAVED_OPTIONS
        saved = read_json(path)
        try:
            cls.check_options(saved)
        except ArgumentError as error:
            raise CheckpointError(f"{path}: {error}") from error
        try:
            module = cls.from_checkpoint(
                Checkpoint(folder), model_kwargs=model_kwargs, config_kwargs=config_kwargs, **{**saved, **given}
            )
        except ArgumentError as error:
            if given.keys() & cls.config_keys:
                raise
            raise CheckpointError(f"{path}: {error}") from error
        if adapters:
            install_adapters(module.model, adapters, folder)
        return module


def visuals_of(rows: Sequence[Row]) -> list[Visual]:
    """Return the images and videos of rows, in order."""
    return [visual for row in rows for visual in row.visuals]


def _count_visuals(rows: Sequence[Row], kind: type[Visual]) -> torch.Tensor:
    """Return how many images, or videos, each row has."""
    return torch.tensor([sum(isinstance(visual, kind) for visual in row.visuals) for row in rows])


def find_backbone(model: Iterable[nn.Module]) -> Backbone | None:
    """Return the backbone of a sentence-transformers model; ``None`` where it is not one of this package's."""
    first = next(iter(model), None)
    return first if isinstance(first, Backbone) else None
