"""The findings about a node that bear on one connection through it.  Pure."""

from collections.abc import Iterable

from svcplane.base.net import family_of
from svcplane.understand.doctor import network, proxy
from svcplane.understand.doctor.examined import Examined
from svcplane.understand.finding import Finding


def way_findings(
    seen: Examined, client: str, frontend: tuple[str, int, str], *, own: bool, forwarded: bool
) -> list[Finding]:
    """Settings and flows that keep `client` from a frontend (address, port, protocol); rules are `rivals.dropped`.

    `own`: the client is this node, whose packets are not forwarded; `forwarded`: some endpoint gets them.
    """
    return [*_settings(seen, client, own=own, forwarded=forwarded), *(proxy.stale_flows(seen, client, frontend))]


def _settings(seen: Examined, client: str, *, own: bool, forwarded: bool) -> Iterable[Finding]:
    yield from proxy.running(seen)
    family = family_of(client)
    state = seen.states.get(family)
    if not forwarded or state is None:
        return
    if not own:
        yield from network.forwarding(seen, family)
    yield from proxy.cluster_cidr(seen, family, state.config)
