"""The addresses of a namespace, against what iproute2 lists."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from svcplane.base.net import Family
from svcplane.kernel.addresses import local, local_addresses
from svcplane.kernel.links.run import inside

pytestmark = [pytest.mark.root, pytest.mark.tools("ip")]


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"addr{os.getpid()}"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", "-n", name, *arguments], check=True)

    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        ip("link", "set", "lo", "up")
        ip("link", "add", "d0", "type", "veth", "peer", "name", "d1")
        ip("link", "set", "d0", "up")
        ip("address", "add", "192.0.2.1/24", "dev", "d0")
        ip("address", "add", "192.0.2.5", "peer", "192.0.2.9", "dev", "d0")
        ip("address", "add", "2001:db8::5/64", "dev", "d0", "nodad")
        for number in range(300):
            ip("address", "add", f"198.51.{number // 250}.{number % 250 + 1}/32", "dev", "lo")
        # of whatever kind: the host's kernel may have no dummy devices
        ip("link", "add", "kube-ipvs0", "type", "bridge")
        ip("link", "set", "kube-ipvs0", "up")
        ip("address", "add", "10.96.0.10/32", "dev", "kube-ipvs0")
        ip("address", "add", "fd00:10:96::a/128", "dev", "kube-ipvs0", "nodad")
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_every_address_of_the_node_is_found_and_none_of_a_service(namespace: str) -> None:
    command = ["ip", "-n", namespace, "-json", "address", "show"]
    links = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    expected = {entry["local"] for link in links if link["ifname"] != "kube-ipvs0" for entry in link["addr_info"]}

    def look() -> dict[Family, tuple[str, ...]]:
        with inside(namespace):
            return asyncio.run(local_addresses())

    found = look()
    assert {ip for addresses in found.values() for ip in addresses} == expected
    assert "192.0.2.5" in found[Family.IPV4]
    assert "192.0.2.9" not in found[Family.IPV4]
    assert {"::1", "2001:db8::5"} <= set(found[Family.IPV6])
    with inside(namespace):
        networks = asyncio.run(local()).networks
    assert networks == {Family.IPV4: ("192.0.2.0/24",), Family.IPV6: ("2001:db8::/64",)}
