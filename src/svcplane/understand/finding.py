"""What the tools tell people: one finding is one cause, with its remedy.  Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """PROBLEM: connections fail.  WARNING: some may, or will.  NOTE: worth knowing."""

    PROBLEM = "problem"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """`code` is stable, for programs; `subject` what it is about (`pod/web-1`); `text` is one line."""

    code: str
    severity: Severity
    subject: str
    text: str
    remedy: str = ""


_ORDER = {Severity.PROBLEM: 0, Severity.WARNING: 1, Severity.NOTE: 2}


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """By severity; findings of one severity keep their order, each once."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda finding: _ORDER[finding.severity]))


def has_problem(findings: Iterable[Finding]) -> bool:
    return any(finding.severity is Severity.PROBLEM for finding in findings)
