"""Two API servers over one etcd: no number is given twice, and clients go on when one is killed."""

import asyncio
import dataclasses
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from svcplane.api.resources import ENDPOINT_SLICES, IP_ADDRESSES, NAMESPACES, SERVICES
from svcplane.api.status import StatusError
from svcplane.base.errors import TransportError
from svcplane.client.api import ApiClient, Tree
from svcplane.client.http import HttpTransport
from svcplane.client.kubeconfig import ClusterAccess, load
from svcplane.testing.etcd import Etcd
from svcplane.testing.process import ApiServerProcess

pytestmark = pytest.mark.tools("etcd")
FLAGS = ("--service-cluster-ip-range=10.96.0.0/24", "--service-node-port-range=30000-30199")


@pytest.fixture
def replicas(etcd: Etcd, tmp_path: Path) -> Iterator[list[ApiServerProcess]]:
    """Two servers with one authority and one token, as docs/etcd.md says."""
    flags = (f"--etcd-servers={etcd.url}", *FLAGS)
    with ExitStack() as stack:
        first = stack.enter_context(ApiServerProcess(tmp_path / "one", "--advertise-address=10.0.0.1", *flags))
        other = tmp_path / "two"
        (other / "pki").mkdir(parents=True)
        for name in ("admin.token", "pki/ca.crt", "pki/ca.key"):
            shutil.copy(first.directory / name, other / name)
        second = stack.enter_context(ApiServerProcess(other, "--advertise-address=10.0.0.2", *flags))
        yield [first, second]


def access(*servers: ApiServerProcess) -> ClusterAccess:
    return dataclasses.replace(load(servers[0].kubeconfig), server=",".join(server.url for server in servers))


def service(name: str) -> Tree:
    spec = {"type": "NodePort", "ports": [{"port": 80}], "selector": {"app": "web"}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


async def check_allocations(api: ApiClient) -> int:
    """Each number once, and records of just what is held.  How many Services hold a node port."""
    services = (await api.list(SERVICES))["items"]
    ips = Counter(ip for item in services for ip in item["spec"]["clusterIPs"])
    ports = Counter(port["nodePort"] for item in services for port in item["spec"]["ports"] if "nodePort" in port)
    assert [number for number, count in (*ips.items(), *ports.items()) if count > 1] == []
    records = {item["metadata"]["name"] for item in (await api.list(IP_ADDRESSES))["items"]}
    assert records == set(ips)
    return len(ports)


async def test_concurrent_creations_never_share_a_number(replicas: list[ApiServerProcess]) -> None:
    clients = [ApiClient(HttpTransport(access(server))) for server in replicas]
    try:
        made = [clients[number % 2].create(SERVICES, "default", service(f"web-{number}")) for number in range(160)]
        await asyncio.gather(*made)
        assert await check_allocations(clients[0]) == 160
        # what one server wrote the other shows at once
        for number in range(20):
            name = f"ns-{number}"
            await clients[number % 2].create(NAMESPACES, "", {"metadata": {"name": name}})
            assert (await clients[1 - number % 2].get(NAMESPACES, "", name))["metadata"]["name"] == name
        slices = await clients[0].list(ENDPOINT_SLICES, "default")
        backing = [endpoint["addresses"][0] for item in slices["items"] for endpoint in item["endpoints"]]
        assert sorted(backing) == ["10.0.0.1", "10.0.0.2"]
    finally:
        for client in clients:
            await client.close()


async def test_client_goes_on_at_the_other_server_when_one_is_killed(replicas: list[ApiServerProcess]) -> None:
    api = ApiClient(HttpTransport(access(*replicas)))
    acknowledged: set[str] = set()
    half_way = asyncio.Event()

    async def write(worker: int) -> None:
        for number in range(12):
            name = f"web-{worker}-{number}"
            for _ in range(5):
                try:
                    await api.create(SERVICES, "default", service(name))
                except TransportError:
                    continue  # whether it arrived is not known
                except StatusError as error:
                    if error.reason != "AlreadyExists":
                        raise
                acknowledged.add(name)
                break
            if number == 5:
                half_way.set()

    async def kill() -> None:
        await half_way.wait()
        replicas[0].kill()

    try:
        async with asyncio.TaskGroup() as group:
            for worker in range(8):
                group.create_task(write(worker))
            group.create_task(kill())
        stored = {item["metadata"]["name"] for item in (await api.list(SERVICES, "default"))["items"]}
        assert len(acknowledged) == 96
        assert stored == acknowledged | {"kubernetes"}
        assert await check_allocations(api) == 96
    finally:
        await api.close()
