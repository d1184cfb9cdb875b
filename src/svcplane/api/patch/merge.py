"""JSON merge patch.  Pure.  Source: RFC 7386."""

from typing import Any


def apply(target: Any, patch: Any) -> Any:
    """The patched value: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = apply(result.get(key), value)
    return result
