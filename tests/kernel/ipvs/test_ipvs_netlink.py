"""Our IPVS messages and the real kernel."""

import errno
from collections.abc import Iterator

import pytest
from tests.kernel.ipvs.world import own_namespace

from svcplane.kernel.ipvs import objects as o
from svcplane.kernel.ipvs.run import IpvsSocket

pytestmark = [pytest.mark.root, pytest.mark.tools("linux.uml", "modprobe")]
V4, V6 = o.ServerKey("tcp", "10.96.0.10", 80), o.ServerKey("udp", "fd00:10:96::a", 53)


@pytest.fixture
def ipvs() -> Iterator[IpvsSocket]:
    """The IPVS of a network namespace of its own, in which the test's thread is."""
    with own_namespace():
        yield IpvsSocket()


@pytest.mark.parametrize("key", [V4, V6], ids=str)
async def test_what_was_written_is_read_back(ipvs: IpvsSocket, key: o.ServerKey) -> None:
    target = ("fd00::1" if ":" in key.address else "10.244.1.11", 8080)
    assert not await ipvs.commit([o.AddServer(key, o.Server("rr")), o.AddDestination(key, target, 5)])
    assert await ipvs.servers() == {key: o.Server("rr")}
    assert await ipvs.find([key, V4, V6]) == {key: o.Server("rr")}
    assert await ipvs.destinations(key) == {target: o.Destination(5)}
    prefix = 64 if ":" in key.address else 24
    sticky = o.Server("sh", 600, prefix, o.FALLBACK)
    assert not await ipvs.commit([o.EditServer(key, sticky), o.EditDestination(key, target, 0)])
    assert await ipvs.servers() == {key: sticky}
    assert await ipvs.destinations(key) == {target: o.Destination(0)}
    assert not await ipvs.commit([o.EditServer(key, o.Server("wlc"))])
    assert await ipvs.servers() == {key: o.Server("wlc")}
    assert not await ipvs.commit([o.DeleteDestination(key, target)])
    assert await ipvs.destinations(key) == {}
    assert not await ipvs.commit([o.DeleteServer(key)])
    assert (await ipvs.servers(), await ipvs.destinations(key)) == ({}, {})


@pytest.mark.parametrize("scheduler", o.SCHEDULERS)
async def test_every_scheduler_is_there(ipvs: IpvsSocket, scheduler: str) -> None:
    assert not await ipvs.commit([o.AddServer(V4, o.Server(scheduler))])
    assert await ipvs.servers() == {V4: o.Server(scheduler)}


async def test_refusals_are_told_each_by_itself(ipvs: IpvsSocket) -> None:
    target = ("10.244.1.11", 8080)
    refused = await ipvs.commit(
        [
            o.AddServer(V4, o.Server("best")),
            o.AddServer(V4, o.Server("rr")),
            o.AddServer(V4, o.Server("rr")),
            o.DeleteServer(V6),
            o.DeleteDestination(V4, target),
            o.AddDestination(V4, target),
            o.AddDestination(V4, target),
        ]
    )
    assert [refusal.error.code for refusal in refused] == [
        errno.ENOENT,
        errno.EEXIST,
        errno.ESRCH,
        errno.ENOENT,
        errno.EEXIST,
    ]
    assert str(refused[0].error) == (
        "IPVS did not add virtual server tcp 10.96.0.10:80: this kernel has no scheduler best (module ip_vs_best)"
    )
    assert await ipvs.destinations(V4) == {target: o.Destination(1)}


async def test_thousands_in_one_go(ipvs: IpvsSocket) -> None:
    keys = [o.ServerKey("tcp", f"10.96.{at // 250}.{at % 250 + 1}", 80) for at in range(2000)]
    changes: list[o.Change] = [o.AddServer(key, o.Server()) for key in keys]
    changes += [o.AddDestination(key, ("10.244.1.11", 8080)) for key in keys]
    assert not await ipvs.commit(changes)
    assert set(await ipvs.servers()) == set(keys)
    assert not await ipvs.commit([o.DeleteServer(key) for key in keys])
    assert not await ipvs.servers()


async def test_timeouts(ipvs: IpvsSocket) -> None:
    before = await ipvs.timeouts()
    await ipvs.set_timeouts(o.Timeouts(tcp=77, udp=33))
    assert await ipvs.timeouts() == o.Timeouts(77, before.tcp_fin, 33)
