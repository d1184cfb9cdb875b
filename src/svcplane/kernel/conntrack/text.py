"""Lines of `conntrack -L`.  Pure."""

import re
from dataclasses import dataclass

_FIELD = re.compile(r"(src|dst|sport|dport)=(\S+)")


@dataclass(frozen=True, slots=True)
class Entry:
    """Both directions of a tracked flow."""

    src: str
    dst: str
    sport: int
    dport: int
    reply_src: str
    reply_dst: str
    reply_sport: int
    reply_dport: int


def parse(text: str) -> list[Entry]:
    """Entries that have ports in both directions; other lines are passed over."""
    found = []
    for line in text.splitlines():
        fields = _FIELD.findall(line)
        if len(fields) != 8:
            continue
        first, second = dict(fields[:4]), dict(fields[4:])
        found.append(
            Entry(
                first["src"],
                first["dst"],
                int(first["sport"]),
                int(first["dport"]),
                second["src"],
                second["dst"],
                int(second["sport"]),
                int(second["dport"]),
            )
        )
    return found
