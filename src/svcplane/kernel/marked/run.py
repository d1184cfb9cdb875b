"""The intake through rtnetlink: I/O only.  Source: include/uapi/linux/fib_rules.h, rtnetlink.h; ip-rule(8).

The rule sends marked packets to a table of its own, whose one route says that every address is this host's.
"""

import asyncio
import errno
import os
import socket
import struct

from svcplane.base.errors import KernelError
from svcplane.base.net import Family, address
from svcplane.kernel.netlink import codec as n
from svcplane.kernel.netlink.run import ROUTE, NetlinkError, NetlinkSocket, Request

NEWROUTE, DELROUTE, GETROUTE, NEWRULE, DELRULE = 24, 25, 26, 32, 33
FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK = 6, 10, 15, 16
RTA_DST, RTA_OIF, RTA_TABLE, RTA_MARK = 1, 4, 15, 16
FR_ACT_TO_TBL, RTN_LOCAL = 1, 2
RTPROT_STATIC, SCOPE_HOST = 4, 254
PRIORITY, TABLE = 99, 24680
HEAD = struct.Struct("=BBBBBBBBI")  # struct rtmsg, and struct fib_rule_hdr
_AF = {Family.IPV4: int(socket.AF_INET), Family.IPV6: int(socket.AF_INET6)}
#: Addresses of documentation, which nobody has.
_SOMEWHERE = {Family.IPV4: "192.0.2.1", Family.IPV6: "2001:db8::1"}
_LACKS = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
_GONE = (errno.ENOENT, errno.ESRCH, errno.ENODEV)
_MARKS = tuple(1 << bit for bit in range(32))


class MarkIntake:
    """Implements `objects.Intake` for packets that have `mark`, one bit.  A kernel without the family needs nothing."""

    def __init__(self, family: Family, mark: int) -> None:
        self._family, self._mark = family, mark
        self._lacks = False
        self._socket = NetlinkSocket(ROUTE, "policy routing")
        self._lock = asyncio.Lock()

    def use(self, mark: int) -> None:
        self._mark = mark

    async def close(self) -> None:
        self._socket.close()

    async def read(self) -> bool:
        packed = address(_SOMEWHERE[self._family]).packed
        head = HEAD.pack(_AF[self._family], 8 * len(packed), 0, 0, 0, 0, 0, 0, 0)
        async with self._lock:
            try:
                answers = self._socket.ask(
                    Request(GETROUTE, head + n.attr(RTA_DST, packed) + n.u32(RTA_MARK, self._mark))
                )
            except NetlinkError as error:
                self._lacks = self._lacks or error.code in _LACKS
                return self._lacks
        return self._lacks or HEAD.unpack_from(answers[0])[7] == RTN_LOCAL

    async def create(self) -> None:
        flags = n.NLM_F_CREATE | n.NLM_F_EXCL
        rule, route = self._rule(NEWRULE, flags, self._mark), self._route(NEWROUTE, n.NLM_F_CREATE)
        others = [self._rule(DELRULE, 0, mark) for mark in _MARKS if mark != self._mark]
        await self._execute([route, rule, *others], (0, errno.EEXIST, *_GONE))

    async def remove(self) -> None:
        await self._execute([*(self._rule(DELRULE, 0, mark) for mark in _MARKS), self._route(DELROUTE, 0)], (0, *_GONE))

    async def _execute(self, requests: list[Request], fine: tuple[int, ...]) -> None:
        async with self._lock:
            for code in self._socket.execute(requests):
                if code in _LACKS:
                    self._lacks = True
                elif code not in fine:
                    raise KernelError(f"policy routing for mark {self._mark:#x}: {os.strerror(code)}")

    def _rule(self, kind: int, flags: int, mark: int) -> Request:
        head = HEAD.pack(_AF[self._family], 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0)
        body = n.u32(FRA_PRIORITY, PRIORITY) + n.u32(FRA_TABLE, TABLE)
        return Request(kind, head + body + n.u32(FRA_FWMARK, mark) + n.u32(FRA_FWMASK, mark), flags)

    def _route(self, kind: int, flags: int) -> Request:
        head = HEAD.pack(_AF[self._family], 0, 0, 0, 0, RTPROT_STATIC, SCOPE_HOST, RTN_LOCAL, 0)
        return Request(kind, head + n.u32(RTA_TABLE, TABLE) + n.u32(RTA_OIF, socket.if_nametoindex("lo")), flags)
