"""What a Service asks of the relay by annotations.  Pure.

A wrong value never takes a Service down: it is told about and the default holds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from svcplane.base.durations import parse_duration
from svcplane.proxy.model import Endpoint, Protocol, ServicePort
from svcplane.proxy.planes.userspace.balance import Address, Strategy

BALANCE = "svcplane.dev/balance"  # round-robin | least-connections
WEIGHTS = "svcplane.dev/weights"  # POD=WEIGHT,...  Pod names may hold * and ?; others weigh 1
PROXY_PROTOCOL = "svcplane.dev/proxy-protocol"  # v1 | v2
IDLE_TIMEOUT = "svcplane.dev/idle-timeout"  # seconds
RETRY = "svcplane.dev/retry"  # unanswered: send a request again whose Pod went away before it answered anything

MAX_WEIGHT = 1000
#: As long as connection tracking remembers an established connection on a Kubernetes node.
TCP_IDLE_S = 86_400
#: As long as connection tracking keeps a UDP flow that was answered.
UDP_IDLE_S = 120
MAX_IDLE_S = 7 * 86_400
UDP_TIMEOUT = "udp-timeout"  # of the proxy's flags


@dataclass(frozen=True, slots=True)
class Policy:
    """How one service port is relayed.  `idle_timeout_s` 0: the default of its protocol."""

    strategy: Strategy = Strategy.ROUND_ROBIN
    weights: tuple[tuple[str, int], ...] = ()
    proxy_protocol: int = 0
    idle_timeout_s: int = 0
    retry_unanswered: bool = False

    def weigh(self, endpoints: Iterable[Endpoint]) -> tuple[tuple[Address, int], ...]:
        """(address, weight) of the endpoints that do not weigh 1; the first pattern that matches counts."""
        if not self.weights:
            return ()
        found = {}
        for endpoint in endpoints:
            name = endpoint.pod.rpartition("/")[2]
            for pattern, weight in self.weights:
                if fnmatchcase(name, pattern):
                    if weight != 1:
                        found[endpoint.ip, endpoint.port] = weight
                    break
        return tuple(found.items())


def idle_s(protocol: Protocol, options: Iterable[tuple[str, str]]) -> float:
    """How long an idle connection or UDP session is kept, where the Service does not say.  `options`: the proxy's."""
    if protocol is Protocol.TCP:
        return TCP_IDLE_S
    given = dict(options).get(UDP_TIMEOUT)
    return parse_duration(given) if given else UDP_IDLE_S


def read_policy(port: ServicePort) -> tuple[Policy, tuple[str, ...]]:
    """The policy of a service port, and one line for each annotation that is wrong."""
    annotations = dict(port.annotations)
    problems: list[str] = []

    def wrong(key: str, allowed: str) -> None:
        problems.append(f"annotation {key}={annotations[key]!r} of {port.name}: must be {allowed}; it is passed over")

    strategy = Strategy.ROUND_ROBIN
    if text := annotations.get(BALANCE, ""):
        try:
            strategy = Strategy(text)
        except ValueError:
            wrong(BALANCE, " or ".join(Strategy))
    weights = _weights(annotations.get(WEIGHTS, ""))
    if weights is None:
        wrong(WEIGHTS, f"POD=WEIGHT,... with weights from 0 to {MAX_WEIGHT}")
    version = {"": 0, "v1": 1, "v2": 2}.get(annotations.get(PROXY_PROTOCOL, ""))
    if version is None or (version and port.protocol is not Protocol.TCP):
        wrong(PROXY_PROTOCOL, "v1 or v2, on a TCP port")
        version = 0
    idle = annotations.get(IDLE_TIMEOUT, "0")
    if not idle.isdecimal() or int(idle) > MAX_IDLE_S:
        wrong(IDLE_TIMEOUT, f"whole seconds up to {MAX_IDLE_S}")
        idle = "0"
    retry = annotations.get(RETRY, "")
    if retry not in ("", "unanswered"):
        wrong(RETRY, "unanswered")
    return Policy(strategy, weights or (), version, int(idle), retry == "unanswered"), tuple(problems)


def _weights(text: str) -> tuple[tuple[str, int], ...] | None:
    """Patterns and weights, or None where the text is wrong."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        pattern, _, number = part.rpartition("=")
        if not pattern or not number.isdecimal() or int(number) > MAX_WEIGHT:
            return None
        found.append((pattern, int(number)))
    return tuple(found)
