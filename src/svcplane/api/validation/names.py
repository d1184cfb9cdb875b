"""Syntax of names, labels and values.  Each function returns what is wrong, as texts; an empty list is valid.

Source: k8s.io/apimachinery/pkg/util/validation; of keys and values of labels pkg/api/validate/content, which tells of
bytes.
"""

import re
from functools import lru_cache

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_UNDERSCORE = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_UNDERSCORE = rf"{_LABEL_UNDERSCORE}(\.{_LABEL_UNDERSCORE})*"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_ENV = "[-._a-zA-Z][-._a-zA-Z0-9]*"

_LABEL_RE = re.compile(_LABEL)
_SUBDOMAIN_RE = re.compile(_SUBDOMAIN)
_QUALIFIED_RE = re.compile(_QUALIFIED)
_VALUE_RE = re.compile(_VALUE)
_LABEL_1035_RE = re.compile(_LABEL_1035)
_CAP = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"


def too_long_text(limit: int) -> str:
    return f"must be no more than {limit} characters"


def _regex_text(message: str, pattern: str, *examples: str) -> str:
    """Upstream joins examples with `or` and, oddly, keeps the blank after each comma."""
    shown = "', or '".join(examples) if len(examples) < 2 else "',  or '".join(examples)
    return f"{message} (e.g. '{shown}', regex used for validation is '{pattern}')"


_LABEL_TEXT = _regex_text(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character",
    _LABEL,
    "my-name",
    "123-abc",
)
_SUBDOMAIN_TEXT = _regex_text(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character",
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
    "example.com",
)
_LABEL_1035_TEXT = _regex_text(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
    "start with an alphabetic character, and end with an alphanumeric character",
    _LABEL_1035,
    "my-name",
    "abc-123",
)


def _masked(name: str, prefix: bool) -> str:
    """A name prefix may end in a dash, since more follows."""
    return name[:-2] + "a" if prefix and len(name) > 1 and name.endswith("-") else name


def dns1123_label(name: str, *, prefix: bool = False) -> list[str]:
    name = _masked(name, prefix)
    problems = [too_long_text(63)] if len(name.encode()) > 63 else []
    if not _LABEL_RE.fullmatch(name):
        if _SUBDOMAIN_RE.fullmatch(name):
            problems.append("must not contain dots")
        else:
            problems.append(_LABEL_TEXT)
    return problems


def dns1123_subdomain(name: str, *, prefix: bool = False) -> list[str]:
    name = _masked(name, prefix)
    problems = [too_long_text(253)] if len(name.encode()) > 253 else []
    if not _SUBDOMAIN_RE.fullmatch(name):
        problems.append(_SUBDOMAIN_TEXT)
    return problems


def dns1123_subdomain_with_underscore(name: str) -> list[str]:
    problems = [too_long_text(253)] if len(name.encode()) > 253 else []
    if not re.fullmatch(_SUBDOMAIN_UNDERSCORE, name):
        text = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', "
            "and must start and end with an alphanumeric character"
        )
        problems.append(_regex_text(text, _SUBDOMAIN_UNDERSCORE, "example.com"))
    return problems


def dns1035_label(name: str, *, prefix: bool = False) -> list[str]:
    name = _masked(name, prefix)
    problems = [too_long_text(63)] if len(name.encode()) > 63 else []
    if not _LABEL_1035_RE.fullmatch(name):
        problems.append(_LABEL_1035_TEXT)
    return problems


def path_segment(name: str, *, prefix: bool = False) -> list[str]:
    """Names that may be anything but what breaks a path (Events)."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{bad}'" for bad in ("/", "%") if bad in name]


def qualified_name(value: str) -> list[str]:
    """`[prefix/]name`, as label and annotation keys."""
    return [] if len(value) <= _LONGEST_KEY and _is_qualified(value) else _qualified_problems(value)


#: A prefix of 253, a slash and a name of 63.
_LONGEST_KEY = 317


@lru_cache(8192)
def _is_qualified(value: str) -> bool:
    """Keys of labels and annotations are few, and looked at in every write."""
    return not _qualified_problems(value)


def _qualified_problems(value: str) -> list[str]:
    parts = value.split("/")
    problems: list[str] = []
    if len(parts) > 2:
        text = _regex_text("a valid label key " + _CAP, _QUALIFIED, "MyName", "my.name", "123-abc")
        return [f"{text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    if len(parts) == 2:
        prefix = parts[0]
        if not prefix:
            problems.append("prefix part must be non-empty")
        else:
            problems += ["prefix part must be no more than 253 bytes"] if len(prefix.encode()) > 253 else []
            problems += [] if _SUBDOMAIN_RE.fullmatch(prefix) else [f"prefix part {_SUBDOMAIN_TEXT}"]
    name = parts[-1]
    if not name:
        problems.append("name part must be non-empty")
    elif len(name.encode()) > 63:
        problems.append("name part must be no more than 63 bytes")
    if not _QUALIFIED_RE.fullmatch(name):
        problems.append("name part " + _regex_text(_CAP, _QUALIFIED, "MyName", "my.name", "123-abc"))
    return problems


def label_value(value: str) -> list[str]:
    problems = ["must be no more than 63 bytes"] if len(value.encode()) > 63 else []
    if not _VALUE_RE.fullmatch(value):
        problems.append(
            _regex_text(
                "a valid label must be an empty string or " + _CAP.removeprefix("must "),
                _VALUE,
                "MyValue",
                "my_value",
                "12345",
            )
        )
    return problems


def port_number(port: int) -> list[str]:
    return [] if 1 <= port <= 65535 else ["must be between 1 and 65535, inclusive"]


def port_name(name: str) -> list[str]:
    """IANA service name, as named target ports."""
    problems: list[str] = []
    if len(name.encode()) > 15:
        problems.append(too_long_text(15))
    if not re.fullmatch(r"[-a-z0-9]+", name):
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search(r"[a-z]", name):
        problems.append("must contain at least one letter (a-z)")
    if "--" in name:
        problems.append("must not contain consecutive hyphens")
    if name and (name[0] == "-" or name[-1] == "-"):
        problems.append("must not begin or end with a hyphen")
    return problems
