"""How a backbone comes from files, and goes into them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from sentence_transformers.base.modules import InputModule
from transformers import BaseImageProcessor, PreTrainedModel

from st_modules.arguments import check_choice, check_optional_integer
from st_modules.backbones.architecture import Architecture, Towers
from st_modules.backbones.checks import check_device, refuse_backend, refuse_options
from st_modules.backbones.precision import loading_kwargs
from st_modules.checkpoints.adapter_files import read_adapters, write_adapters
from st_modules.checkpoints.adapters import Adapters, collect_adapters, install_adapters, without_adapters
from st_modules.checkpoints.configuration import CONFIG, load_config
from st_modules.checkpoints.fields import Kind, check_fields
from st_modules.checkpoints.guard import check_folder
from st_modules.checkpoints.image_processors import PREPROCESSOR_CONFIG, load_image_processor
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
from st_modules.prompts.templates import TEMPLATES
from st_modules.prompts.tokenizer import SegmentTokenizer


class StoredBackbone(InputModule):
    """The files of a backbone; :class:`st_modules.backbones.base.Backbone` is the rest of it.

    Attributes:
        config_keys: Arguments of the constructor that are saved with the model.
        architecture: The classes of transformers that it is made of.
        towers: Its parts.
        takes_pairs: Whether an item is a query and a document.
        unused_weights: Weights that may be missing or superfluous.
        model: What runs.
        segment_tokenizer: Turns rendered items into token ids.
        image_processor: Turns images into the model's pixel features.
    """

    config_file_name = SAVED_OPTIONS
    config_keys: list[str] = ["template", "max_length"]
    architecture: ClassVar[Architecture]
    towers: ClassVar[Towers]
    takes_pairs: ClassVar[bool] = False
    unused_weights: ClassVar[frozenset[str]] = UNUSED_WEIGHTS
    model: Any
    segment_tokenizer: SegmentTokenizer
    image_processor: Any

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
        known = [name for name, template in TEMPLATES.items() if template.takes_pairs is cls.takes_pairs]
        check_choice("template", options.get("template"), known)
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
        kwargs = {"optional": cls.unused_weights, "config": config, **model_kwargs}
        if classes.names:
            kwargs["key_mapping"] = {**classes.names, **(kwargs.get("key_mapping") or {})}
        model = cls._load_model(checkpoint, **kwargs)
        template = TEMPLATES[options["template"]]
        module = cls(
            model.base_model,
            SegmentTokenizer(
                checkpoint.folder_of("tokenizer_config.json"),
                classes.tokenizer,
                template.render,
                normalised=template.normalises,
                takes_video=template.takes_video,
                takes_pairs=template.takes_pairs,
            ),
            cls._load_image_processor(checkpoint, config),
            **options,
        )
        module.take_head(model)
        return module

    def take_head(self, model: PreTrainedModel) -> None:
        """Keep what is needed of a published model beside what runs, which no embedding needs anything of."""

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

    def _follow_tokenizer(self) -> int:
        """Read tokens that were added to the tokenizer; return how many tokens the model has embeddings for."""
        language: Any = self.model.get_submodule(self.towers.language)
        embeddings: int = language.get_input_embeddings().weight.shape[0]
        self.segment_tokenizer.follow_changes(
            embeddings, f"model[0].model.{self.towers.language}.resize_token_embeddings"
        )
        return embeddings
