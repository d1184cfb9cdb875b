"""Our ipset messages and the real kernel; `ipset` itself is asked too."""

import subprocess
from collections.abc import Iterator

import pytest
from tests.kernel.ipvs.world import own_namespace

from svcplane.base.net import Family
from svcplane.kernel.ipset import objects as o
from svcplane.kernel.ipset.run import IpsetSocket

pytestmark = [pytest.mark.root, pytest.mark.tools("linux.uml", "modprobe", "ipset")]
CASES = [
    (o.Set("a", o.IP, Family.IPV4), o.Entry("10.96.0.1"), "10.96.0.1"),
    (o.Set("b", o.IP_PORT, Family.IPV4), o.Entry("10.96.0.1", "udp", 53), "10.96.0.1,udp:53"),
    (
        o.Set("c", o.IP_PORT_IP, Family.IPV4),
        o.Entry("10.244.1.1", "tcp", 8080, "10.244.1.1"),
        "10.244.1.1,tcp:8080,10.244.1.1",
    ),
    (
        o.Set("d", o.IP_PORT_NET, Family.IPV4),
        o.Entry("203.0.113.1", "sctp", 80, "172.30.0.0/27"),
        "203.0.113.1,sctp:80,172.30.0.0/27",
    ),
    (o.Set("e", o.IP, Family.IPV6), o.Entry("fd00::a"), "fd00::a"),
    (o.Set("f", o.IP_PORT_NET, Family.IPV6), o.Entry("fd00::a", "tcp", 80, "fd30::/64"), "fd00::a,tcp:80,fd30::/64"),
]


@pytest.fixture
def ipset() -> Iterator[IpsetSocket]:
    with own_namespace():
        yield IpsetSocket()


@pytest.mark.parametrize(("set_", "entry", "told"), CASES, ids=lambda value: getattr(value, "name", ""))
async def test_what_was_written_is_read_back(ipset: IpsetSocket, set_: o.Set, entry: o.Entry, told: str) -> None:
    assert await ipset.read([set_.name]) == {}
    await ipset.create(set_)
    assert await ipset.read([set_.name]) == {set_.name: (set_, frozenset())}
    await ipset.add(set_, [entry])
    await ipset.add(set_, [entry])  # again is no error
    assert await ipset.read([set_.name]) == {set_.name: (set_, frozenset({entry}))}
    listed = subprocess.run(["ipset", "list", set_.name], capture_output=True, text=True, check=True).stdout
    assert listed.split("Members:\n")[1].split() == [told]
    await ipset.delete(set_, [entry])
    await ipset.delete(set_, [entry])
    assert await ipset.read([set_.name]) == {set_.name: (set_, frozenset())}
    await ipset.destroy(set_.name)
    await ipset.destroy(set_.name)
    assert await ipset.read([set_.name]) == {}


async def test_many_entries_and_the_bound(ipset: IpsetSocket) -> None:
    set_ = o.Set("many", o.IP_PORT, Family.IPV4)
    entries = frozenset(o.Entry(f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}", "tcp", 80) for at in range(70_000))
    await ipset.create(set_)
    await ipset.add(set_, entries)
    assert (await ipset.read(["many"]))["many"][1] == entries
    small = o.Set("small", o.IP, Family.IPV4, max_entries=2)
    await ipset.create(small)
    with pytest.raises(o.IpsetError, match="set small: the set is full"):
        await ipset.add(small, [o.Entry(f"10.0.0.{at}") for at in range(3)])


async def test_a_set_in_use_is_not_removed(ipset: IpsetSocket) -> None:
    set_ = o.Set("used", o.IP_PORT, Family.IPV4)
    await ipset.create(set_)
    rule = ["INPUT", "-m", "set", "--match-set", "used", "dst,dst", "-j", "ACCEPT"]
    subprocess.run(["iptables", "-A", *rule], check=True)
    await ipset.add(set_, [o.Entry("10.96.0.1", "tcp", 80)])
    assert await ipset.sizes(["used", "absent"]) == {"used": o.Size(1, 1)}
    with pytest.raises(o.IpsetError, match="set used cannot be removed: a rule refers to it"):
        await ipset.destroy("used")
    subprocess.run(["iptables", "-D", *rule], check=True)
