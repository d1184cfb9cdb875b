"""The sets in memory behave as the kernel's (tests/kernel/ipvs asks the kernel)."""

import pytest

from svcplane.base.net import Family
from svcplane.kernel.ipset import codec
from svcplane.kernel.ipset import objects as o
from svcplane.kernel.ipset.fake import FakeIpset

SMALL = o.Set("small", o.IP_PORT, Family.IPV4, max_entries=2)
ENTRIES = [o.Entry("10.96.0.1", "tcp", port) for port in (80, 81, 82)]


async def test_adding_and_deleting_again_is_no_error_but_a_full_set_is() -> None:
    ipset = FakeIpset()
    await ipset.create(SMALL)
    await ipset.add(SMALL, ENTRIES[:2])
    await ipset.add(SMALL, ENTRIES[:2])
    with pytest.raises(o.IpsetError, match="set small: the set is full"):
        await ipset.add(SMALL, ENTRIES)
    await ipset.delete(SMALL, ENTRIES)
    assert await ipset.read(["small", "absent"]) == {"small": (SMALL, frozenset())}
    with pytest.raises(o.IpsetError, match="set small: File exists"):
        await ipset.create(SMALL)


async def test_a_set_in_use_stays() -> None:
    ipset = FakeIpset()
    await ipset.create(SMALL)
    ipset.in_use.add("small")
    with pytest.raises(o.IpsetError, match="a rule refers to it"):
        await ipset.destroy("small")


def test_many_entries_make_many_messages() -> None:
    entries = [o.Entry("10.96.0.1", "tcp", port) for port in range(1, codec.PART * 2 + 2)]
    bodies = list(codec.change(SMALL, entries))
    assert [list(codec.decode_entries(body, SMALL.type)) for body in bodies] == [
        entries[: codec.PART],
        entries[codec.PART : codec.PART * 2],
        entries[codec.PART * 2 :],
    ]
