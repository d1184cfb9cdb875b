"""The IPVS in memory refuses what the kernel refuses, with the same numbers (tests/kernel/ipvs asks the kernel)."""

import errno

from svcplane.kernel.ipvs import objects as o
from svcplane.kernel.ipvs.fake import FakeIpvs

KEY, OTHER, TARGET = o.ServerKey("tcp", "10.96.0.10", 80), o.ServerKey("udp", "10.96.0.10", 80), ("10.244.1.11", 8080)


async def test_refusals_are_told_each_by_itself() -> None:
    ipvs = FakeIpvs(schedulers=("rr",))
    refused = await ipvs.commit(
        [
            o.AddServer(KEY, o.Server("lc")),
            o.AddServer(KEY, o.Server("rr")),
            o.AddServer(KEY, o.Server("rr")),
            o.DeleteServer(OTHER),
            o.DeleteDestination(KEY, TARGET),
            o.AddDestination(KEY, TARGET),
            o.AddDestination(KEY, TARGET),
        ]
    )
    codes = [refusal.error.code for refusal in refused]
    assert codes == [errno.ENOENT, errno.EEXIST, errno.ESRCH, errno.ENOENT, errno.EEXIST]
    assert await ipvs.servers() == {KEY: o.Server("rr")}
    assert await ipvs.destinations(KEY) == {TARGET: o.Destination(1)}


async def test_a_server_goes_with_its_destinations() -> None:
    ipvs = FakeIpvs()
    await ipvs.commit(
        [o.AddServer(KEY, o.Server()), o.AddDestination(KEY, TARGET, 3), o.EditDestination(KEY, TARGET, 0)]
    )
    assert await ipvs.destinations(KEY) == {TARGET: o.Destination(0)}
    await ipvs.commit([o.DeleteServer(KEY), o.AddServer(KEY, o.Server())])
    assert await ipvs.destinations(KEY) == {}
