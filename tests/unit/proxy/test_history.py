"""The log gives back what was wanted at any moment it reaches to, and is bounded."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.proxystates import proxy_states

from svcplane.base.net import Family
from svcplane.proxy.history import Entry, History, take
from svcplane.proxy.model import NodeConfig, NodeState, ProxyState
from svcplane.proxy.plane import Operation

CONFIG = NodeConfig("node1", Family.IPV4)
FIXED = st.just(CONFIG)


def entry(at_s: float, what: str = "sync") -> Entry:
    return Entry(at_s, "IPv4", "nftables", what)


@given(st.lists(proxy_states(FIXED), min_size=1, max_size=5), st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_every_moment_has_the_state_that_was_programmed_then(states: list[ProxyState], data: st.DataObject) -> None:
    log = History()
    previous: set[object] = set()
    for number, state in enumerate(states):
        full = number == 0 or data.draw(st.booleans())
        names = None if full else set(state.services) | previous
        log.synced(entry(float(number)), take(state, names), ())  # type: ignore[arg-type]
        previous = set(state.services)
    for number, state in enumerate(states):
        found = log.state_at(states[-1], number + 0.5)
        assert dict(found.services) == dict(state.services)
        assert dict(found.endpoints) == {k: v for k, v in state.endpoints.items() if k in state.services}


@given(proxy_states(FIXED).filter(lambda state: bool(state.services)))
@settings(max_examples=10)
def test_entries_name_the_services_they_changed(state: ProxyState) -> None:
    log = History()
    doing = [Operation("add", f"element {n}", "new") for n in range(200)]
    log.synced(entry(1.0), take(state, None), doing)
    log.synced(entry(2.0), take(state, None), ())
    first, second = log.entries()
    service = "/".join(next(iter(state.services)).service)
    assert service in first.services
    assert (second.services, second.service_count) == ((), 0)
    assert len(first.operations) == 50
    assert log.entries(service) == (first,)
    assert log.entries("no/such") == ()
    assert log.entries(since_s=1.5) == (second,)


def test_the_log_is_bounded_and_says_where_it_begins() -> None:
    log = History(limit=3)
    empty = ProxyState(CONFIG, NodeState("node1"))
    with pytest.raises(ValueError, match="it begins at nothing"):
        log.state_at(empty, 5.0)
    for number in range(10):
        log.note(entry(float(number), "repair"))
    assert [found.at_s for found in log.entries()] == [7.0, 8.0, 9.0]
    with pytest.raises(ValueError, match=r"does not reach back to 5.000: it begins at 7.000"):
        log.state_at(empty, 5.0)
