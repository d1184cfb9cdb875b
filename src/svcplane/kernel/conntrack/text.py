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


@dataclass(frozen=True, slots=True)
class Counted:
    """A tracked flow with its counters; bytes are None where the kernel does not count (nf_conntrack_acct 0)."""

    protocol: str
    entry: Entry
    state: str  # of TCP: ESTABLISHED, TIME_WAIT, ...; else empty
    sent: int | None  # bytes from the client
    received: int | None

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        return self.protocol, self.entry.src, self.entry.sport, self.entry.dst, self.entry.dport


_PROTOCOL = re.compile(r"\b(tcp|udp|sctp)\s+\d+")
_STATE = re.compile(r"\b([A-Z][A-Z0-9_]+) src=")
_BYTES = re.compile(r"bytes=(\d+)")


def parse_counted(text: str) -> list[Counted]:
    """Lines of `conntrack -L` or of `conntrack -E`; those without ports are passed over."""
    found = []
    for line in text.splitlines():
        protocol, entries = _PROTOCOL.search(line), parse(line)
        if protocol is None or not entries:
            continue
        state, counted = _STATE.search(line), _BYTES.findall(line)
        sent, received = (int(counted[0]), int(counted[1])) if len(counted) == 2 else (None, None)
        found.append(Counted(protocol[1], entries[0], state[1] if state else "", sent, received))
    return found
