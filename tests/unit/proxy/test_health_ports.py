"""Health check node ports follow their Services."""

import socket
import time
from dataclasses import replace

from svcplane.base.net import Family
from svcplane.proxy.health import CheckPorts, Health
from svcplane.proxy.model import NodeConfig, NodeState, Protocol, ProxyState, ServicePort, ServicePortName

FIRST, SECOND = (ServicePortName("default", "lb", name, Protocol.TCP) for name in ("a", "b"))


def listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_a_listener_stays_while_another_port_of_its_service_remains() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    port = ServicePort(FIRST, "10.96.0.10", 80, external_policy_local=True, health_check_node_port=number)
    both = {FIRST: port, SECOND: replace(port, name=SECOND, port=81)}
    state = ProxyState(NodeConfig("n", Family.IPV4), NodeState("n"), services=both)
    checks = CheckPorts(Health(updated_wall=time.time()))
    try:
        assert not await checks.update((state,), None)
        assert listening(number)
        await checks.update((replace(state, services={SECOND: both[SECOND]}),), {FIRST: None})
        assert listening(number)
        await checks.update((replace(state, services={}),), {SECOND: None})
        assert not listening(number)
    finally:
        await checks.close()
