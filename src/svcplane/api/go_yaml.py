"""JSON values as YAML in the words of upstream's writer: names in order, texts that could be taken for something else
in double quotes, texts of several lines as blocks.  Pure.

Source: sigs.k8s.io/yaml, goyaml.v2 (encode.go, sorter.go, resolve.go).
"""

import functools
import re
from typing import Any

import yaml

#: Words that YAML 1.1 takes for values.
_WORDS = frozenset(
    word
    for name in ("y", "yes", "true", "on", "n", "no", "false", "off", "null")
    for word in (name, name.capitalize(), name.upper())
) | {"", "~", *(sign + word for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")), ".nan", ".NaN", ".NAN"}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INT = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"([Tt ][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)


class _Dumper(yaml.CSafeDumper):  # type: ignore[misc, unused-ignore]
    """Which texts need quotes is said here, not by the rules of the library."""

    yaml_implicit_resolvers: dict[Any, Any] = {}


def _is_ambiguous(text: str) -> bool:
    """Whether a text without quotes would be read as something else."""
    if text in _WORDS or _BASE_60.fullmatch(text):
        return True
    if text[0] == ".":
        return _FLOAT.fullmatch(text) is not None
    if text[0] not in "+-0123456789":
        return False
    plain = text.replace("_", "")
    return bool(_TIME.fullmatch(text) or _INT.fullmatch(plain) or _FLOAT.fullmatch(plain))


def _text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else '"' if _is_ambiguous(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _plain(dumper: yaml.CSafeDumper, value: Any) -> yaml.ScalarNode:
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return dumper.represent_scalar("tag:yaml.org,2002:str", shown)


_Dumper.add_representer(str, _text)
for _type in (bool, int, float, type(None)):
    _Dumper.add_representer(_type, _plain)


def _before(one: str, other: str) -> int:
    """The order of names: numbers within them by their value, letters after all else."""
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a == b:
            continue
        if a.isalpha() or b.isalpha():
            return ord(a) - ord(b) if a.isalpha() and b.isalpha() else -1 if b.isalpha() else 1
        # a zero within a number counts for its place: what begins with other digits is longer, not smaller
        within = "0" in (a, b) and re.search(r"[1-9][0-9]*$", one[:at]) is not None
        first, second = (re.match(r"[0-9]*", text[at:]) for text in (one, other))
        assert first is not None
        assert second is not None
        numbers = [int(("1" if within else "") + found[0] or "0") for found in (first, second)]
        if numbers[0] != numbers[1]:
            return numbers[0] - numbers[1]
        return first.end() - second.end() or ord(a) - ord(b)
    return len(one) - len(other)


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value, key=functools.cmp_to_key(_before))}
    if isinstance(value, list):
        return [_ordered(inner) for inner in value]
    return value


def written(value: Any) -> str:
    """What JSON holds as a YAML document."""
    return yaml.dump(_ordered(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)
