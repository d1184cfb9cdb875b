"""A look into a running proxy gives back what it wants, and nobody is served where none runs."""

import pytest
from hypothesis import HealthCheck, given, settings
from tests.proxystates import proxy_states

from svcplane.base.errors import EnvironmentProblem, TransportError
from svcplane.proxy import inspect
from svcplane.proxy.inspect import InspectServer, is_taken, look
from svcplane.proxy.model import ProxyState
from svcplane.proxy.snapshot import FamilySnapshot, Snapshot, decode, encode


@given(proxy_states())
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_a_snapshot_says_the_whole_state(state: ProxyState) -> None:
    whole = Snapshot("node1", "nftables", 7, 1.5, (FamilySnapshot.of(state),))
    again = decode(encode(whole))
    assert list(again.states) == [state]
    assert again == whole


async def test_pages_are_served_on_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "NAME", "\0svcplane-proxy-test")
    assert await look("/state") is None

    def state(query: inspect.Query) -> bytes:
        if "at" in query and not query["at"].isdigit():
            raise ValueError("at: must be a number")
        return f'{{"at": "{query.get("at", "")}"}}'.encode()

    server = InspectServer({"/state": state})
    await server.start()
    try:
        assert await look("/state", {"at": "5"}) == b'{"at": "5"}'
        with pytest.raises(TransportError, match="400: at: must be a number"):
            await look("/state", {"at": "x"})
        with pytest.raises(TransportError, match="404: there is no /other"):
            await look("/other")
        with pytest.raises(EnvironmentProblem, match="another svcplane proxy"):
            await InspectServer({}).start()
        assert await is_taken()
    finally:
        await server.close()
    assert await look("/state") is None
    assert not await is_taken()
