"""The contract of a backbone: a sentence-transformers input module that plans before it touches pixels."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import torch
from sentence_transformers.base.modality_types import Modality
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import BaseImageProcessor, PreTrainedModel, PreTrainedTokenizerBase

from st_modules.arguments import check_integer
from st_modules.backbones.checks import check_side, refuse_options
from st_modules.backbones.linear import speed_up_layers
from st_modules.backbones.prefixes import PrefixStates
from st_modules.backbones.rows import Row, Visual, count_visuals, visuals_of
from st_modules.backbones.stored import StoredBackbone
from st_modules.checkpoints.image_processors import describe_statistics
from st_modules.errors import ArgumentError, CheckpointError
from st_modules.inputs.images import ImageSource
from st_modules.inputs.items import Item, parse_items
from st_modules.inputs.limits import ImageLimits, check_image_limits
from st_modules.inputs.pixel_budget import read_within_budget
from st_modules.inputs.videos import VideoSource
from st_modules.prompts.checks import check_prompt, refuse_videos
from st_modules.prompts.long_texts import most_characters
from st_modules.prompts.segments import Image, Segment, Video
from st_modules.prompts.templates import TEMPLATES, Side
from st_modules.prompts.tokenizer import SegmentTokenizer

logger = logging.getLogger(__name__)


class Backbone(StoredBackbone):
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

    identity_keys: ClassVar[list[str]] = ["template"]
    has_token_embeddings = True

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
        speed_up_layers(model)
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
        instructions = [prompt if item.instruction is None else item.instruction[:longest] for item in items]
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
        wholes = [[each for each in row if isinstance(each, Image) or each.part == 0] for row in visuals]
        return [
            Row(
                ids=row.ids,
                visuals=tuple(each.source for each in whole),
                trimmed=row.trimmed,
                length=len(row.ids) + sum(n for each, n in zip(segments, tokens, strict=True) if each.token is None),
                constant=row.constant,
                common=sum(each.common for each in whole),
            )
            for row, segments, whole, tokens in zip(tokenized, visuals, wholes, counts, strict=True)
        ]

    def _render(self, item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
        template = TEMPLATES[self.template]
        row = template.render(item, instruction, side)
        return template.divide(row, self.video_times) if template.divide else row

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
            "num_images_per_sample": count_visuals(rows, ImageSource),
        }
        if self.takes_video:
            features["num_videos_per_sample"] = count_visuals(rows, VideoSource)
        if found := list(pixels):
            features.update(self.join_pixels(found))
        return features

    def parse(self, inputs: Sequence[Any]) -> list[Item]:
        """Return one item for each input; images and videos are neither read nor fetched yet.

        Raises:
            InputError: Something is no input.
        """
        return parse_items(inputs, self.image_limits, takes_video=self.takes_video)

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
        items = self.parse(inputs)
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


def find_backbone(model: Iterable[nn.Module]) -> Backbone | None:
    """Return the backbone of a sentence-transformers model; ``None`` where it is not one of this package's."""
    first = next(iter(model), None)
    return first if isinstance(first, Backbone) else None
