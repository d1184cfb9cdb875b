"""A dummy device through rtnetlink: I/O only.  Source: include/uapi/linux/rtnetlink.h, if_addr.h, if_link.h.

An IPv4 address has scope host and an IPv6 address a preferred lifetime of zero, so that neither is ever chosen as the
source of this host's own connections.
"""

import asyncio
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable

from svcplane.base.errors import EnvironmentProblem, KernelError
from svcplane.base.net import Family, address
from svcplane.kernel.netlink import codec as n
from svcplane.kernel.netlink.run import ROUTE, NetlinkError, NetlinkSocket, Request
from svcplane.kernel.privilege import may_administer_network

NEWLINK, DELLINK, GETLINK, NEWADDR, DELADDR, GETADDR = 16, 17, 18, 20, 21, 22
IFF_UP = 1
IFLA_IFNAME, IFLA_LINKINFO, IFLA_INFO_KIND = 3, 18, 1
IFA_ADDRESS, IFA_LOCAL, IFA_CACHEINFO = 1, 2, 6
IFA_F_NODAD = 0x02
SCOPE_UNIVERSE, SCOPE_HOST = 0, 254
FOREVER = 0xFFFFFFFF
_AF = {Family.IPV4: int(socket.AF_INET), Family.IPV6: int(socket.AF_INET6)}
MANY = 500


class DummyDevice:
    """Implements `objects.Dummy`."""

    def __init__(self, name: str, family: Family) -> None:
        self._name, self._family = name, family
        self._socket = NetlinkSocket(ROUTE, f"device {name}")
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        self._socket.close()

    def _index(self) -> int:
        """0 where there is no such device."""
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + n.text(IFLA_IFNAME, self._name)
        try:
            answers = self._socket.ask(Request(GETLINK, body))
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return 0
            raise
        index: int = struct.unpack_from("=BxHiII", answers[0])[2]
        return index

    def _addresses(self, index: int, af: int) -> frozenset[str]:
        body = struct.pack("=BBBBI", af, 0, 0, 0, 0)
        found = set()
        for answer in self._socket.ask(Request(GETADDR, body, n.NLM_F_DUMP)):
            if struct.unpack_from("=BBBBI", answer)[4] != index:
                continue
            attributes = n.attributes(answer, 8)
            parsed = ipaddress.ip_address(attributes.get(IFA_LOCAL) or attributes[IFA_ADDRESS])
            if not parsed.is_link_local:
                found.add(str(parsed))
        return frozenset(found)

    async def read(self) -> frozenset[str] | None:
        async with self._lock:
            index = self._index()
            return self._addresses(index, _AF[self._family]) if index else None

    async def create(self) -> None:
        async with self._lock:
            kind = n.nest(IFLA_LINKINFO, n.text(IFLA_INFO_KIND, "dummy"))
            head = struct.pack("=BxHiII", 0, 0, 0, IFF_UP, IFF_UP)
            named = n.text(IFLA_IFNAME, self._name)
            if self._index():
                requests = [Request(NEWLINK, head + named)]
            else:
                requests = [Request(NEWLINK, head + named + kind, n.NLM_F_CREATE | n.NLM_F_EXCL)]
            (code,) = self._socket.execute(requests)
            if code == errno.EOPNOTSUPP:
                raise EnvironmentProblem("this kernel has no dummy devices (module dummy)")
            self._raise(code, "cannot be made")

    def _raise(self, code: int, what: str) -> None:
        if code:
            raise KernelError(f"device {self._name}: {what}: {os.strerror(code)}")

    async def add(self, addresses: Iterable[str]) -> None:
        await self._change(NEWADDR, addresses, n.NLM_F_CREATE | n.NLM_F_EXCL, errno.EEXIST)

    async def delete(self, addresses: Iterable[str]) -> None:
        await self._change(DELADDR, addresses, 0, errno.EADDRNOTAVAIL)

    async def _change(self, kind: int, addresses: Iterable[str], flags: int, harmless: int) -> None:
        async with self._lock:
            wanted = list(addresses)
            index = self._index()
            if not index:
                if kind == DELADDR or not wanted:
                    return
                raise KernelError(f"there is no device {self._name}")
            requests = [Request(kind, self._address(index, ip), flags) for ip in wanted]
            if len(requests) > MANY:
                codes = await asyncio.to_thread(self._socket.execute, requests)
            else:
                codes = self._socket.execute(requests)
            for ip, code in zip(wanted, codes, strict=True):
                if code != harmless:
                    self._raise(code, f"address {ip}")

    def _address(self, index: int, ip: str) -> bytes:
        packed = address(ip).packed
        if self._family is Family.IPV4:
            head = struct.pack("=BBBBI", _AF[self._family], 32, 0, SCOPE_HOST, index)
            return head + n.attr(IFA_LOCAL, packed) + n.attr(IFA_ADDRESS, packed)
        head = struct.pack("=BBBBI", _AF[self._family], 128, IFA_F_NODAD, SCOPE_UNIVERSE, index)
        lifetime = struct.pack("=IIII", 0, FOREVER, 0, 0)
        return head + n.attr(IFA_ADDRESS, packed) + n.attr(IFA_CACHEINFO, lifetime)

    async def remove(self) -> None:
        if not may_administer_network():
            raise EnvironmentProblem(f"removing device {self._name} needs the capability NET_ADMIN; run as root")
        await self.delete(await self.read() or ())
        async with self._lock:
            index = self._index()
            if not index or any(self._addresses(index, af) for af in _AF.values()):
                return
            (code,) = self._socket.execute([Request(DELLINK, struct.pack("=BxHiII", 0, 0, index, 0, 0))])
            if code != errno.ENODEV:
                self._raise(code, "cannot be removed")
