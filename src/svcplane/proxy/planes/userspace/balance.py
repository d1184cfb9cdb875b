"""Which endpoint a client gets.  Pure: no I/O, time is a parameter (monotonic seconds).

Source: kube-proxy's userspace mode (round robin for each service port, affinity refreshed by each connection and
reset when the endpoint does not answer).  Weights are spread as nginx's smooth weighted round robin does.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum

ASIDE_FIRST_S, ASIDE_MOST_S = 5.0, 60.0
AFFINITY_CAPACITY = 262_144  # clients of one service port
Address = tuple[str, int]


class Strategy(StrEnum):
    """How an endpoint is chosen where no affinity decides.  Both honour weights."""

    ROUND_ROBIN = "round-robin"
    LEAST_CONNECTIONS = "least-connections"


class Backend:
    """An endpoint with what the relay knows of it.  `address` is what sockets connect to."""

    __slots__ = ("active", "address", "aside_until", "connections", "credit", "failures", "received", "sent", "weight")

    def __init__(self, address: Address, weight: int = 1) -> None:
        self.address, self.weight = address, weight
        self.credit = 0  # of the smooth weighted round robin
        self.active = self.connections = 0
        self.sent = self.received = 0  # bytes to and from the endpoint, of ended connections
        self.failures = 0  # dials failed in a row
        self.aside_until = 0.0

    def __repr__(self) -> str:
        return f"Backend{self.address}"


class Affinity:
    """Remembered clients of one service port, oldest first; refreshed by each connection."""

    def __init__(self, timeout_s: float, capacity: int = AFFINITY_CAPACITY) -> None:
        self.timeout_s = timeout_s
        self._capacity = capacity
        self._clients: OrderedDict[str, tuple[Backend, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._clients)

    def get(self, client: str, now: float) -> Backend | None:
        """The endpoint of a client that was here less than the timeout ago."""
        found = self._clients.get(client)
        if found is None:
            return None
        if now - found[1] >= self.timeout_s:
            del self._clients[client]
            return None
        return found[0]

    def remember(self, client: str, backend: Backend, now: float) -> None:
        """Also where it is known: the time starts again.  A full table forgets who was away longest."""
        self._clients[client] = backend, now
        self._clients.move_to_end(client)
        if len(self._clients) > self._capacity:
            self._clients.popitem(last=False)

    def forget(self, client: str) -> None:
        self._clients.pop(client, None)

    def keep_only(self, backends: Collection[Backend]) -> None:
        """Forget clients of endpoints that are gone."""
        for client in [client for client, (backend, _) in self._clients.items() if backend not in backends]:
            del self._clients[client]

    def expire(self, now: float) -> None:
        while self._clients:
            client, (_, used) = next(iter(self._clients.items()))
            if now - used < self.timeout_s:
                return
            del self._clients[client]

    def entries(self, now: float) -> Iterator[tuple[str, Address, float]]:
        """(client, endpoint, seconds left) of those that still count."""
        for client, (backend, used) in self._clients.items():
            left = self.timeout_s - (now - used)
            if left > 0:
                yield client, backend.address, left


class Pool:
    """Endpoints that one kind of traffic of a service port may use.  `first`: whose turn it is at the start."""

    __slots__ = ("_first", "backends", "even", "turn")

    def __init__(self, first: int = 0) -> None:
        self._first = first
        self.backends: tuple[Backend, ...] = ()
        self.turn = 0
        self.even = True  # all weights are alike

    def replace(self, backends: Iterable[Backend]) -> None:
        begins = not self.backends
        self.backends = tuple(backends)
        if begins and self.backends:
            self.turn = self._first % len(self.backends)
        self.even = len({backend.weight for backend in self.backends}) <= 1

    def next_in_turn(self) -> Backend:
        """Round robin without weights and exclusions: the common case."""
        backends = self.backends
        turn = self.turn
        if turn >= len(backends):
            turn = 0
        self.turn = turn + 1
        return backends[turn]


class Balance:
    """One service port: its endpoints, affinity, and endpoints set aside after failed dials.

    `cluster` and `local` are the two pools traffic policies ask for; they share endpoints and affinity, so that a
    client gets the same Pod by every address of the Service.  `kept` get nobody new.  `first`: a number of the
    caller's, so that not all nodes and workers send their first client to one endpoint.
    """

    def __init__(self, first: int = 0) -> None:
        self.strategy = Strategy.ROUND_ROBIN
        self.affinity: Affinity | None = None
        self.backends: dict[Address, Backend] = {}
        self.cluster, self.local = Pool(first), Pool(first)
        self._aside: set[Backend] = set()

    def update(
        self,
        cluster: Iterable[Address],
        local: Iterable[Address],
        *,
        kept: Iterable[Address] = (),
        strategy: Strategy = Strategy.ROUND_ROBIN,
        weights: Iterable[tuple[Address, int]] = (),
        affinity_timeout_s: float = 0,
    ) -> None:
        """Take over endpoints and options.  What is known of endpoints that stay is kept; of others forgotten."""
        cluster, local, weighted = tuple(cluster), tuple(local), dict(weights)
        known = {}
        for address in dict.fromkeys((*cluster, *local, *kept)):
            backend = known[address] = self.backends.get(address) or Backend(address)
            backend.weight = weighted.get(address, 1)
        self.backends = known
        self.cluster.replace(known[address] for address in cluster)
        self.local.replace(known[address] for address in local)
        here = frozenset((*self.cluster.backends, *self.local.backends))
        self._aside &= here
        self.strategy = strategy
        if not affinity_timeout_s:
            self.affinity = None
        elif self.affinity is None:
            self.affinity = Affinity(affinity_timeout_s)
        else:
            self.affinity.timeout_s = affinity_timeout_s
            self.affinity.keep_only(here)

    # -- choosing ------------------------------------------------------------------------------------------------------

    def choose(self, pool: Pool, client: str, now: float, tried: Collection[Backend] = ()) -> Backend | None:
        """The endpoint for a client's connection, or None where there is none.

        `tried`: those that failed this very connection, latest last: others come first.  Affinity holds unless
        its endpoint is among them.
        """
        if not pool.backends:
            return None
        affinity = self.affinity
        if affinity is None:
            return self._pick(pool, now, tried)
        backend = affinity.get(client, now) if not tried else None
        if backend is None or backend not in pool.backends:
            backend = self._pick(pool, now, tried)
        affinity.remember(client, backend, now)
        return backend

    def _pick(self, pool: Pool, now: float, tried: Collection[Backend]) -> Backend:
        if not tried and not self._aside and pool.even and self.strategy is Strategy.ROUND_ROBIN:
            return pool.next_in_turn()
        candidates = self._candidates(pool, now, tried)
        if self.strategy is Strategy.LEAST_CONNECTIONS:
            return _least(pool, candidates)
        return _smooth(candidates) if not pool.even else _after(pool, candidates)

    def _candidates(self, pool: Pool, now: float, tried: Collection[Backend]) -> tuple[Backend, ...]:
        """Untried and not set aside; where there are none, with those set aside; else the one tried longest ago."""
        self._aside -= {backend for backend in self._aside if backend.aside_until <= now}
        weighted = tuple(backend for backend in pool.backends if backend.weight > 0) or pool.backends
        untried = tuple(backend for backend in weighted if backend not in tried)
        if not untried:
            untried = tuple(backend for backend in pool.backends if backend not in tried)
        if not untried:
            for backend in tried:
                if backend in pool.backends:
                    return (backend,)
            return pool.backends
        return tuple(backend for backend in untried if backend not in self._aside) or untried

    # -- what came of it -----------------------------------------------------------------------------------------------

    def failed(self, backend: Backend, now: float) -> None:
        """A dial failed: the endpoint is set aside, for longer each time."""
        backend.failures += 1
        backend.aside_until = now + min(ASIDE_MOST_S, ASIDE_FIRST_S * 2 ** min(backend.failures - 1, 8))
        if self.backends.get(backend.address) is backend:
            self._aside.add(backend)

    def answered(self, backend: Backend) -> None:
        """A dial of an endpoint that had failed went well."""
        backend.failures = 0
        backend.aside_until = 0.0
        self._aside.discard(backend)


def _least(pool: Pool, candidates: tuple[Backend, ...]) -> Backend:
    """Fewest connections for its weight; equals in turn."""
    pool.turn += 1
    start = pool.turn % len(candidates)
    ordered = candidates[start:] + candidates[:start]
    return min(ordered, key=lambda backend: backend.active / (backend.weight or 1e-9))


def _smooth(candidates: tuple[Backend, ...]) -> Backend:
    total, best = 0, candidates[0]
    for backend in candidates:
        backend.credit += backend.weight
        total += backend.weight
        if backend.credit > best.credit:
            best = backend
    best.credit -= total
    return best


def _after(pool: Pool, candidates: tuple[Backend, ...]) -> Backend:
    """Round robin over the whole pool, passing over those that are no candidates."""
    allowed = frozenset(candidates)
    for _ in pool.backends:
        backend = pool.next_in_turn()
        if backend in allowed:
            return backend
    return candidates[0]
