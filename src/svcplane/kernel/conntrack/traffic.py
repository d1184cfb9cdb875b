"""Two looks at the tracked flows, and those that began in between -> what went over each translation.  Pure.

A translated flow is one whose answers come from another address or port than it was sent to: in every mode, those of
Services are.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from svcplane.kernel.conntrack.text import Counted

#: States of TCP in which nothing more is sent.
OVER = frozenset({"TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK"})


@dataclass(slots=True)
class Translated:
    """From `address:port` to `endpoint:endpoint_port`, in the `protocol` of lower-case letters.

    `new`: flows that began; `active`: flows that are not over.  `sent`, `received`: bytes as the client sees them, None
    where the kernel does not count them (net.netfilter.nf_conntrack_acct 0).
    """

    protocol: str
    address: str
    port: int
    endpoint: str
    endpoint_port: int
    new: int = 0
    active: int = 0
    sent: int | None = None
    received: int | None = None


def translations(before: Iterable[Counted], after: Iterable[Counted], new: Iterable[Counted]) -> list[Translated]:
    """Those with a flow that is not over, or with anything new; the busiest first."""
    earlier = {flow.key: flow for flow in before}
    found: dict[tuple[str, str, int, str, int], Translated] = {}

    def of(flow: Counted) -> Translated | None:
        entry = flow.entry
        if (entry.dst, entry.dport) == (entry.reply_src, entry.reply_sport):
            return None
        key = (flow.protocol, entry.dst, entry.dport, entry.reply_src, entry.reply_sport)
        return found.setdefault(key, Translated(*key))

    for flow in new:
        if (one := of(flow)) is not None:
            one.new += 1
    for flow in after:
        if (one := of(flow)) is None:
            continue
        one.active += flow.state not in OVER
        if flow.sent is None or flow.received is None:
            continue
        old = earlier.get(flow.key)
        then = (old.sent or 0, old.received or 0) if old is not None else (0, 0)
        # a port may be used again: counters that fell are of another flow
        if flow.sent < then[0] or flow.received < then[1]:
            then = (0, 0)
        one.sent = (one.sent or 0) + flow.sent - then[0]
        one.received = (one.received or 0) + flow.received - then[1]
    busy = [one for one in found.values() if one.new or one.active or one.sent or one.received]
    return sorted(busy, key=lambda one: (-one.new, -one.active, one.address, one.port, one.endpoint, one.endpoint_port))
