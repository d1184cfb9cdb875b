"""Paths within volumes and below directories of nodes.  Pure.  Source: pkg/apis/core/validation."""

from svcplane.api import fields as f
from svcplane.api.fields import FieldError


def no_way_up(text: str, path: str) -> list[FieldError]:
    """`text` must not lead out of the directory it begins in."""
    return [f.invalid(path, text, "must not contain '..'")] if ".." in text.split("/") else []


def local(text: str, path: str) -> list[FieldError]:
    """`text` must lead to something below a directory (validateLocalDescendingPath)."""
    errors = [f.invalid(path, text, "must be a relative path")] if text.startswith("/") else []
    return errors + no_way_up(text, path)
