"""Keys and values of what rows begin with in common: for one call, or for as long as weights are said to be fixed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from st_modules.backbones.attention import KeysAndValues

_MOST_STATES = 8


class PrefixStates:
    """Keys and values of beginnings, layer by layer, of those that were used last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: OrderedDict[tuple[int, ...], list[KeysAndValues]] = OrderedDict()

    def get(self, ids: tuple[int, ...], compute: Callable[[], list[KeysAndValues]]) -> list[KeysAndValues]:
        """Return what ``compute`` returned for these token ids, or call it."""
        with self._lock:
            found = self._states.pop(ids, None)
        found = found or compute()
        with self._lock:
            self._states[ids] = found
            while len(self._states) > _MOST_STATES:
                self._states.popitem(last=False)
        return found


class KeptPrefixes:
    """The states that outlive a call, for a model whose weights are said to be fixed.

    They are those of the weights at the time: what changes them in a way that can be told begins anew. Copies, those in
    other processes too, begin with none.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states = PrefixStates()
        self._made_by: Hashable = None

    def __reduce__(self) -> tuple[type[KeptPrefixes], tuple[()]]:
        return KeptPrefixes, ()

    def find(self, modules: Iterable[nn.Module]) -> PrefixStates:
        """Return the states that modules have made as they are now; none yet where they changed, or cannot tell.

        Args:
            modules: All that run for a beginning.
        """
        now = _describe(modules)
        if now is None:
            return PrefixStates()
        with self._lock:
            if now != self._made_by:
                self._states, self._made_by = PrefixStates(), now
            return self._states


def _describe(modules: Iterable[nn.Module]) -> Hashable | None:
    """Describe all that modules' output depends on and that can change, or return ``None`` where that cannot be told.

    It sees a tensor that is replaced, moved, cast or written to by an operation that torch counts, a hook, and the
    precision of arithmetic. It cannot see writes that torch does not count: through ``.data`` and numpy, and those of
    fused optimisers, but for the gradients that these leave behind.
    """
    tensors: list[tuple[str, StorageWeakRef, int, int, torch.dtype]] = []
    hooks: list[int] = []
    devices: set[str] = set()
    for module in modules:
        if module.training or isinstance(module, BaseTunerLayer):
            return None
        hooks += [*module._forward_pre_hooks, *module._forward_hooks]
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None:
                continue
            if tensor.is_inference() or tensor.grad is not None:
                return None
            # By a weak reference to its memory, since the address of what was freed may be that of the next tensor.
            memory = StorageWeakRef(tensor.untyped_storage())
            devices.add(tensor.device.type)
            tensors.append((name, memory, tensor.data_ptr(), tensor._version, tensor.dtype))
    autocast = tuple(
        (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in sorted(devices)
    )
    return tuple(tensors), tuple(hooks), autocast, torch.get_float32_matmul_precision()
