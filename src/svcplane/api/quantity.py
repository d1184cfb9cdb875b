"""Amounts of resources: `500m`, `1536Mi`, `2`.  Pure.  Source: k8s.io/apimachinery/pkg/api/resource.

An amount has one canonical spelling, in which it is stored and shown: `1000m` is `1`, `1024Mi` is `1Gi`.
"""

import functools
import math
import re
from fractions import Fraction

_SHAPE = re.compile(r"([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
_EXPONENT = re.compile(r"[eE][-+]?\d+", re.ASCII)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL_SUFFIXES = {power: suffix for suffix, power in _DECIMAL.items()}
_BINARY_SUFFIXES = {0: "", **{power: suffix for suffix, power in _BINARY.items()}}
BAD_SHAPE = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
BAD_SUFFIX = "unable to parse quantity's suffix"
_MAX_EXPONENT = 300


def _split(text: str) -> tuple[Fraction, str]:
    match = _SHAPE.fullmatch(text)
    if match is None or _NUMBER.fullmatch(match[1]) is None:
        raise ValueError(BAD_SHAPE)
    number, suffix = Fraction(match[1]), match[2]
    if suffix in _BINARY:
        return number * 1024 ** _BINARY[suffix], "binary"
    if suffix in _DECIMAL:
        return number * Fraction(10) ** _DECIMAL[suffix], "decimal"
    if _EXPONENT.fullmatch(suffix) is None or abs(int(suffix[1:])) > _MAX_EXPONENT:
        raise ValueError(BAD_SUFFIX)
    return number * Fraction(10) ** int(suffix[1:]), "exponent"


def _up(value: Fraction) -> int:
    """The next whole number away from zero."""
    return math.ceil(value) if value > 0 else math.floor(value)


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Fraction:
    """The amount.  Raises ValueError with upstream's words."""
    return _split(text)[0]


@functools.lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """The one spelling of an amount.  Raises ValueError with upstream's words."""
    value, form = _split(text)
    if not value:
        return "0"
    if form == "binary" and abs(value) >= 1024:
        whole, power = _up(value), 0
        while whole % 1024 == 0 and power < 6:
            whole, power = whole // 1024, power + 1
        return f"{whole}{_BINARY_SUFFIXES[power]}"
    whole, power = _up(value * 10**9), -9
    while whole % 1000 == 0 and (power < 18 or form == "exponent"):
        whole, power = whole // 1000, power + 3
    if form == "exponent":
        return f"{whole}e{power}" if power else str(whole)
    return f"{whole}{_DECIMAL_SUFFIXES[power]}"


def rounded(text: str) -> str:
    """A canonical amount without what is finer than a thousandth, as the server keeps it."""
    value, form = _split(text)
    milli = value * 1000
    if milli.denominator == 1 or form == "binary":
        return text
    return canonical(f"{_up(milli)}m")
