"""The nearest of several names, for "did you mean".  Pure."""

import difflib
from collections.abc import Iterable

CUTOFF = 0.6


def nearest(word: str, options: Iterable[str]) -> str:
    """The option most like `word`, or an empty text where none is much like it.  Case counts for nothing."""
    by_folded = {option.casefold(): option for option in options}
    found = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=CUTOFF)
    return by_folded[found[0]] if found else ""


def is_like(first: str, second: str) -> bool:
    """Whether one may be a misspelling of the other, or says more of the same (`web`, `web-v2`)."""
    one, other = sorted((first.casefold(), second.casefold()), key=len)
    return bool(one) and (other.startswith(one) or bool(nearest(one, (other,))))


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """`; did you mean X?` or an empty text."""
    found = nearest(word, options)
    return f"; did you mean {found!r}?" if found else ""
