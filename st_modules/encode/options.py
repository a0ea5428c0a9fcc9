"""How ``encode`` saves work: each way can be switched off, to be tested and timed without it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from st_modules.arguments import check_flag


@dataclass(frozen=True)
class EncodeOptions:
    """Which ways of saving work ``encode`` uses; an attribute of a model, ``model.encode_options``, not saved with it.

    Embeddings are the same with each of them on or off, to the precision of the model's arithmetic: they are there to
    find out what one saves, and to leave one out where it is suspected of an error.

    Args:
        deduplication: Equal items of a call are embedded once.
        exact_lengths: Rows are batched with rows of like length, longest first, and not in the caller's order.
        token_budget: A batch ends where its tokens are ``max_batch_tokens``, and not at ``batch_size`` rows alone.
        parallel_reading: Images are read in several threads, beside an accelerator while the batch before them runs.
        packing: Rows of a language model lie end to end without padding.
        shared_prefix: What rows of a language model begin with in common is run once. Needs ``packing``.
        pruning: The last layer runs for the pooled tokens alone. On a language model it needs ``packing``.
        fast_vision: The patches of Qwen2-VL and Qwen3-VL go in as bytes, and images of one size attend in one call.

    Example:
        >>> import dataclasses
        >>> model.encode_options = dataclasses.replace(model.encode_options, packing=False)
    """

    deduplication: bool = True
    exact_lengths: bool = True
    token_budget: bool = True
    parallel_reading: bool = True
    packing: bool = True
    shared_prefix: bool = True
    pruning: bool = True
    fast_vision: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            check_flag(field.name, getattr(self, field.name))
