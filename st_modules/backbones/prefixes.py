"""Keys and values of what rows begin with in common: for one call, or for as long as weights are said to be fixed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from st_modules.backbones.attention import KeysAndValues

_MOST_STATES = 8
# Those of a beginning with pictures are as many as thousands of tokens.
_MOST_TOKENS = 4096
_ADAPTERS = (BaseTunerLayer, AuxiliaryTrainingWrapper)


class PrefixState(NamedTuple):
    """What is kept of a beginning.

    Attributes:
        layers: Keys and values of its tokens, layer by layer.
        end: The position of the token after it, which is less than their number where there are pictures.
    """

    layers: list[KeysAndValues]
    end: int


class PrefixStates:
    """The states of the beginnings that were used last: of a few, and of no more than some thousand tokens together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: OrderedDict[tuple[tuple[int, ...], Hashable], PrefixState] = OrderedDict()

    def get(self, ids: tuple[int, ...], compute: Callable[[], PrefixState], visuals: Hashable = ()) -> PrefixState:
        """Return what ``compute`` returned for these token ids and visuals, or call it."""
        key = ids, visuals
        with self._lock:
            found = self._states.pop(key, None)
        found = found or compute()
        with self._lock:
            self._states[key] = found
            while len(self._states) > 1 and (len(self._states) > _MOST_STATES or self._count_tokens() > _MOST_TOKENS):
                self._states.popitem(last=False)
        return found

    def _count_tokens(self) -> int:
        return sum(len(ids) for ids, _ in self._states)


class KeptPrefixes:
    """The states that outlive a call, for a model whose weights are said to be fixed.

    They are those of the weights at the time: what changes them in a way that can be told begins anew. A copy keeps
    nothing: the weights of one in another process may be shared with this one, where changes are told here alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states = PrefixStates()
        self._made_by: Hashable = None

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    def find(self, modules: Iterable[nn.Module]) -> PrefixStates:
        """Return the states that modules have made as they are now; none yet where they changed, or cannot tell.

        Args:
            modules: All that run for a beginning.
        """
        now = _describe(modules)
        with self._lock:
            # What cannot be told begins anew too: an adapter that was merged leaves the same tensors behind.
            if now is None or now != self._made_by:
                self._states, self._made_by = PrefixStates(), now
            return self._states


def _describe(modules: Iterable[nn.Module]) -> Hashable | None:
    """Describe all that modules' output depends on and that can change, or return ``None`` where that cannot be told.

    It cannot be told in training mode, with gradients, adapters, or hooks of others. It sees a tensor that is replaced,
    moved, cast or written to by an operation that torch counts, and the precision of arithmetic. It cannot see writes
    that torch does not count (through ``.data`` and numpy, those of fused optimisers once gradients are gone), nor what
    is no tensor: attributes and methods of modules.
    """
    if _global_forward_hooks or _global_forward_pre_hooks:
        return None
    tensors: list[Hashable] = []
    devices: set[str] = set()
    for module in modules:
        if module.training or isinstance(module, _ADAPTERS) or _has_hooks_of_others(module):
            return None
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None:
                continue
            if tensor.is_inference() or tensor.grad is not None:
                return None
            # By a weak reference to its memory, since the address of what was freed may be that of the next tensor.
            memory = StorageWeakRef(tensor.untyped_storage())
            devices.add(tensor.device.type)
            # PEFT freezes what it adapts, which is all that a merged adapter leaves to be seen.
            told = (tensor._version, tensor.dtype, tensor.requires_grad)
            tensors.append((name, memory, tensor.data_ptr(), *told))
    autocast = tuple(
        (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in sorted(devices)
    )
    backends: Any = torch.backends
    precision = [each.fp32_precision for each in (backends, backends.cuda.matmul, backends.mkldnn.matmul)]
    return tuple(tensors), autocast, tuple(precision)


def _has_hooks_of_others(module: nn.Module) -> bool:
    # One may do anything, and another thing in the next call.
    hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    return any(not getattr(hook, "__module__", "").startswith("st_modules.") for hook in hooks)
