"""Times of JSON, read and told of as Go reads them.  Pure.

Source: k8s.io/apimachinery/pkg/apis/meta/v1 Time and MicroTime, UnmarshalJSON; time.Parse.
"""

import re
from calendar import monthrange
from datetime import UTC, datetime, timedelta

from svcplane.api.fields import quoted

_ZONE, _FRACTION = "Z07:00", ".000000"
#: The usual ones, with days that every month has.
_USUAL = r"(?!000[01])[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]%sZ"
_USUAL_WHOLE, _USUAL_MICRO = re.compile(_USUAL % ""), re.compile(_USUAL % r"\.[0-9]{6}")
#: Parts of the layout: what each looks like and, of numbers, what they may be.
_PARTS: tuple[tuple[str, str, tuple[str, int, int] | None], ...] = (
    ("2006", "[0-9]{4}", None),
    ("-", "-", None),
    ("01", "[0-9]{2}", ("month", 1, 12)),
    ("-", "-", None),
    ("02", "[0-9]{2}", None),
    ("T", "T", None),
    ("15", "[0-9]{1,2}", ("hour", 0, 23)),
    (":", ":", None),
    ("04", "[0-9]{2}", ("minute", 0, 59)),
    (":", ":", None),
    ("05", "[0-9]{2}", ("second", 0, 59)),
)
_GIVEN_FRACTION = re.compile("[.,][0-9]+")
_MICROS = re.compile("[.,]([0-9]{6})")
_OFFSET = re.compile("([+-])([0-9]{2}):([0-9]{2})")
_ZERO = datetime(1, 1, 1, tzinfo=UTC)


def read(text: str, *, micro: bool) -> str:
    """The time as the API tells it: in UTC, of whole seconds or with six digits; the zero time as nothing.

    Raises ValueError as Go words it.
    """
    if (_USUAL_MICRO if micro else _USUAL_WHOLE).fullmatch(text):
        return text
    numbers, rest = _date_and_time(text, micro)
    fraction = _MICROS.match(rest) if micro else _GIVEN_FRACTION.match(rest)
    if micro and fraction is None:
        raise _cannot(text, micro, rest, _FRACTION)
    rest = rest[fraction.end() if fraction else 0 :]
    offset, rest = _offset(text, micro, rest)
    if rest:
        raise _wrong(text, f"extra text: {quoted(rest)}")
    year, month, day, hour, minute, second = numbers
    if not 1 <= day <= monthrange(year or 4, month)[1]:
        raise _wrong(text, "day out of range")
    digits = f".{fraction[1]}" if micro and fraction else ""
    try:
        found = datetime(year, month, day, hour, minute, second, tzinfo=UTC) - offset
    except (ValueError, OverflowError):  # before the first or after the last year of Python
        return "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}".format(*numbers) + f"{digits}Z"
    if found == _ZERO and not digits.strip(".0"):
        return ""
    return f"{found.year:04}-{found:%m-%dT%H:%M:%S}{digits}Z"


def _date_and_time(text: str, micro: bool) -> tuple[list[int], str]:
    """The numbers, and what comes after them."""
    numbers: list[int] = []
    rest = text
    for part, looks, bounds in _PARTS:
        found = re.match(looks, rest)
        if found is None:
            raise _cannot(text, micro, rest, part)
        rest = rest[found.end() :]
        if found[0].isdigit():
            numbers.append(int(found[0]))
        if bounds and not bounds[1] <= numbers[-1] <= bounds[2]:
            raise _wrong(text, f"{bounds[0]} out of range")
    return numbers, rest


def _offset(text: str, micro: bool, rest: str) -> tuple[timedelta, str]:
    if rest.startswith("Z"):
        return timedelta(), rest[1:]
    found = _OFFSET.match(rest)
    if found is None:
        raise _cannot(text, micro, rest, _ZONE)
    hours, minutes = int(found[2]), int(found[3])
    if hours > 24:
        raise _wrong(text, "time zone offset hour out of range")
    if minutes > 60:
        raise _wrong(text, "time zone offset minute out of range")
    return timedelta(hours=hours, minutes=minutes) * (-1 if found[1] == "-" else 1), rest[found.end() :]


def _cannot(text: str, micro: bool, rest: str, part: str) -> ValueError:
    layout = f"2006-01-02T15:04:05{_FRACTION if micro else ''}{_ZONE}"
    return ValueError(f"parsing time {quoted(text)} as {quoted(layout)}: cannot parse {quoted(rest)} as {quoted(part)}")


def _wrong(text: str, what: str) -> ValueError:
    return ValueError(f"parsing time {quoted(text)}: {what}")
