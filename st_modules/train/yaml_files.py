"""YAML files of users, read within bounds: aliases can make a file of a few lines as large as one likes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from st_modules.train.validation import ConfigError

_MOST_BYTES = 1024 * 1024
_MOST_VALUES = 100_000
_MOST_LEVELS = 50


def read_yaml(path: Path) -> Any:
    """Read a YAML file of plain values.

    Raises:
        ConfigError: The file is missing or no YAML, is larger than a configuration can be, or names a key twice.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}.") from error
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"{path}: over {_MOST_BYTES} bytes, which no configuration has.")
    try:
        loader = yaml.SafeLoader(content.decode("utf-8"))
        node = loader.get_single_node()
        if node is None:
            return None
        _count(path, node, {}, 0)
        return loader.construct_document(node)
    except RecursionError as error:
        raise _too_deep(path) from error
    except ConfigError:
        raise
    # Whole numbers of too many digits and dates that are none are a ValueError.
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not a YAML file: {error}") from error


def _count(path: Path, node: yaml.Node, known: dict[int, int], level: int) -> int:
    """Return how many values a node is, those of aliases as often as they are named."""
    if level > _MOST_LEVELS:  # an alias within what it names has no end
        raise _too_deep(path)
    if id(node) not in known:
        number = 1 + sum(_count(path, child, known, level + 1) for child in _children(path, node))
        if number > _MOST_VALUES:
            raise ConfigError(f"{path}: over {_MOST_VALUES} values, which no configuration has.")
        known[id(node)] = number
    return known[id(node)]


def _children(path: Path, node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        keys: set[Any] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in keys:
                raise ConfigError(f"{path}: line {key.start_mark.line + 1}: {key.value} is there twice.")
            keys.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key))
            yield from (key, value)


def _too_deep(path: Path) -> ConfigError:
    return ConfigError(f"{path}: nested more than {_MOST_LEVELS} levels deep, which no configuration is.")
