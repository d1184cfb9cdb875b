"""Manifest files -> objects.  Wrong ones are told before anything is made of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from svcplane.api.resources import BY_KIND
from svcplane.base.errors import ConfigError

Tree = dict[str, Any]


def manifests(directory: Path) -> list[Tree]:
    """All objects of a directory's YAML files.  Raises ConfigError that names the file and what is wrong."""
    files = sorted(directory.glob("*.yaml"))
    if not files:
        raise ConfigError(f"there are no manifests in {directory}")
    return [tree for file in files for tree in documents(file)]


def documents(file: Path) -> Iterator[Tree]:
    """All objects of a file.  Raises ConfigError that names the file and what is wrong."""
    try:
        found = list(yaml.safe_load_all(file.read_text()))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {' '.join(str(error).split())}") from error
    for number, tree in enumerate(found, 1):
        if tree is None:
            continue
        place = f"{file}: document {number}"
        if not isinstance(tree, dict):
            raise ConfigError(f"{place}: must be a mapping with apiVersion, kind and metadata")
        kind = (tree.get("apiVersion"), tree.get("kind"))
        if kind not in BY_KIND:
            raise ConfigError(f"{place}: there is no kind {kind[1]} in apiVersion {kind[0]}")
        metadata = tree.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            raise ConfigError(f"{place}: {kind[1]} has no metadata.name")
        yield tree
