"""The ipvs plane at 1,000 Services of 10 endpoints, in user-mode Linux where this kernel has no IPVS.

    python -m benchmarks proxy_ipvs

The floor is the same kernel taking the same virtual servers and targets as bare netlink messages, ready made and sent
in batches: what is above it is the plane's own work, its sets, addresses and rules.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.figures import Figure, Scale, percentile
from svcplane.base.errors import EnvironmentProblem
from svcplane.base.net import Family
from svcplane.kernel import uml
from svcplane.kernel.ipvs import codec
from svcplane.kernel.ipvs import objects as o
from svcplane.kernel.ipvs.run import IpvsSocket
from svcplane.kernel.netlink.run import GENERIC, NetlinkSocket, Request
from svcplane.proxy.model import (
    DetectLocal,
    Endpoint,
    NodeConfig,
    NodeState,
    Protocol,
    ProxyState,
    ServicePort,
    ServicePortName,
)
from svcplane.proxy.planes.ipvs.make import make

TITLE = "ipvs plane, 10 endpoints a Service"
ENDPOINTS = 10
TIMEOUT_S = 600.0
ROOT = Path(__file__).parents[1]
CONFIG = NodeConfig("node1", Family.IPV4, DetectLocal.CLUSTER_CIDR, ("10.0.0.0/8",), primary_ips=("10.250.0.1",))


class Counted(NetlinkSocket):
    """Counts requests of all sockets while the plane's are made of it."""

    count = 0

    def execute(self, requests):  # type: ignore[no-untyped-def]
        Counted.count += len(requests)
        return super().execute(requests)

    def ask(self, request):  # type: ignore[no-untyped-def]
        Counted.count += 1
        return super().ask(request)


def state(count: int) -> ProxyState:
    services, behind = {}, {}
    for number in range(count):
        name = ServicePortName("default", f"svc-{number}", "http", Protocol.TCP)
        services[name] = ServicePort(name, f"10.96.{number // 250}.{number % 250 + 1}", 80)
        ips = (number * ENDPOINTS + k for k in range(ENDPOINTS))
        behind[name] = tuple(Endpoint(f"10.{1 + ip // 62500}.{ip // 250 % 250}.{ip % 250 + 1}", 8080) for ip in ips)
    return ProxyState(CONFIG, NodeState("node1"), services, behind)


def bare_messages(wanted: ProxyState) -> list[bytes]:
    changes: list[o.Change] = []
    for name, port in wanted.services.items():
        key = o.ServerKey("tcp", port.cluster_ip, port.port)
        changes.append(o.AddServer(key, o.Server()))
        changes += [o.AddDestination(key, (endpoint.ip, endpoint.port)) for endpoint in wanted.endpoints[name]]
    return [codec.encode(change) for change in changes]


def bare_seconds(wanted: ProxyState) -> float:
    """The kernel alone; it is left empty."""
    bodies = bare_messages(wanted)
    link = NetlinkSocket(GENERIC, "IPVS")
    kind = codec.family_id(link.ask(Request(codec.GENL_CTRL, codec.family_request()))[0])
    requests = [Request(kind, body) for body in bodies]
    began = time.perf_counter()
    codes = link.execute(requests)
    took = time.perf_counter() - began
    assert not any(codes), "the kernel refused"
    keys = [o.ServerKey("tcp", port.cluster_ip, port.port) for port in wanted.services.values()]
    link.execute([Request(kind, codec.encode(o.DeleteServer(key))) for key in keys])
    link.close()
    return took


async def measured(count: int, rounds: int) -> list[Figure]:
    """In a network namespace without any IPVS of its own."""
    wanted = state(count)
    await IpvsSocket().available()  # its module is loaded before anything is timed
    floor = bare_seconds(wanted)
    plane = make(CONFIG)
    began = time.perf_counter()
    await plane.sync(wanted, None, now=0.0)
    full = time.perf_counter() - began
    began = time.perf_counter()
    again = await make(CONFIG).sync(wanted, None, now=0.0)
    adopted = time.perf_counter() - began
    assert again.operation_count == 0, "a start over the same state wrote something"
    taken, names = [], list(wanted.services)
    before = Counted.count
    for number in range(rounds):
        name = names[number * 7 % len(names)]
        more = (*wanted.endpoints[name], Endpoint(f"10.200.0.{number + 1}", 8080))
        after = replace(wanted, endpoints={**wanted.endpoints, name: more})
        began = time.perf_counter()
        await plane.sync(after, frozenset({name}), now=0.0)
        taken.append(time.perf_counter() - began)
    messages = (Counted.count - before) / rounds
    await plane.cleanup()
    bare = "the messages alone"
    return [
        Figure(f"full sync, {count:,} Services", full, "s", floor=floor, floor_name=bare),
        Figure(f"start over the same state, {count:,} Services", adopted, "s", floor=full, floor_name="full sync"),
        Figure("one endpoint: median", percentile(taken, 0.5) * 1e3, "ms"),
        Figure("one endpoint: netlink messages", messages, "messages", 1.0),
    ]


def inside(count: int, rounds: int, result: Path) -> None:
    """What a process in a namespace of its own runs."""
    from svcplane.kernel.dummy import run as dummy
    from svcplane.kernel.ipset import run as ipset
    from svcplane.kernel.ipvs import run as ipvs

    for module in (dummy, ipset, ipvs):
        module.NetlinkSocket = Counted  # type: ignore[attr-defined]
    result.write_text(json.dumps([asdict(figure) for figure in asyncio.run(measured(count, rounds))]))


async def run(scale: Scale) -> list[Figure]:
    """Raises EnvironmentProblem where neither this kernel nor user-mode Linux can serve."""
    count, rounds = scale.of(1000, 20), scale.of(50, 3)
    with tempfile.TemporaryDirectory(prefix="svcplane-bench-") as directory:
        share, result = Path(directory), Path(directory) / "figures.json"
        call = f"from benchmarks.proxy_ipvs import *; inside({count}, {rounds}, Path({str(result)!r}))"
        # without any address the kernel takes no targets
        script = 'ip link set lo up && exec "$@"'
        command = ["unshare", "-n", "sh", "-c", script, "sh", sys.executable, "-c", call]
        if os.geteuid() == 0 and await IpvsSocket().available():
            await asyncio.to_thread(subprocess.run, command, cwd=ROOT, check=True, timeout=TIMEOUT_S)
        elif uml.available():
            (share / "uml").mkdir()
            environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
            kernel = uml.Uml(command, share / "uml", cwd=ROOT, environment=environment)
            done = await asyncio.to_thread(kernel.wait, TIMEOUT_S)
            if done.status:
                raise uml.UmlProblem(done.output)
        else:
            raise EnvironmentProblem("this kernel has no IPVS, and user-mode-linux is not installed (make dev does it)")
        return [Figure(**found) for found in json.loads(result.read_text())]
