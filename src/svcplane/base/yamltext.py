"""YAML (and JSON) texts, strictly: a key given twice is an error.  Pure."""

from typing import Any

import yaml

from svcplane.base.errors import ConfigError


class _Loader(yaml.CSafeLoader):
    """YAML 1.1 as Kubernetes reads it: a key given twice is an error, a date stays a text."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise ConfigError(f"line {key_node.start_mark.line + 1}: the key {key!r} must be a text")
        if key in found:
            raise ConfigError(f"line {key_node.start_mark.line + 1}: {key} is given twice")
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
for _tag in ("timestamp", "value", "merge"):  # dates, `=` and, as a value, `<<`
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", lambda _loader, node: node.value)


def documents(text: str) -> list[Any]:
    """The documents of a YAML (or JSON) text, empty ones left out.  Raises ConfigError naming the line."""
    try:
        return [document for document in yaml.load_all(text, _Loader) if document is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigError(f"{where}is no YAML: {problem}") from error
