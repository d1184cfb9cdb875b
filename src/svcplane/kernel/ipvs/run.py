"""The kernel's IPVS through generic netlink: I/O only.

The socket belongs to the network namespace it was opened in, at its first use.  A change takes the kernel tens of
microseconds; many are pipelined, large batches in a thread.
"""

import asyncio
import errno
from collections.abc import Mapping, Sequence
from pathlib import Path

from svcplane.base.errors import EnvironmentProblem
from svcplane.kernel.ipvs import codec
from svcplane.kernel.ipvs.objects import (
    Change,
    Connection,
    Destination,
    IpvsError,
    Refusal,
    Server,
    ServerKey,
    Target,
    Timeouts,
)
from svcplane.kernel.netlink.codec import NLM_F_DUMP
from svcplane.kernel.netlink.run import GENERIC, NetlinkError, NetlinkSocket, Request

MANY = 500
CONNECTIONS = Path("/proc/self/net/ip_vs_conn")


class IpvsSocket:
    """Implements `objects.Ipvs`."""

    def __init__(self) -> None:
        self._socket = NetlinkSocket(GENERIC, "IPVS")
        self._kind = 0
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        self._socket.close()

    def _family(self) -> int:
        """The number the kernel gave to IPVS.  Asking for it loads the module."""
        if not self._kind:
            try:
                bodies = self._socket.ask(Request(codec.GENL_CTRL, codec.family_request()))
            except NetlinkError as error:
                if error.code != errno.ENOENT:
                    raise
                raise EnvironmentProblem(
                    "this kernel has no IPVS (module ip_vs); use another --proxy-mode or a kernel with it"
                ) from error
            self._kind = codec.family_id(bodies[0])
        return self._kind

    async def available(self) -> bool:
        async with self._lock:
            try:
                self._family()
            except EnvironmentProblem:
                return False
            return True

    def _dump(self, body: bytes) -> list[bytes]:
        return self._socket.ask(Request(self._family(), body, NLM_F_DUMP))

    async def servers(self) -> Mapping[ServerKey, Server]:
        async with self._lock:
            bodies = self._dump(codec.generic(codec.GET_SERVICE))
            return dict(found for found in map(codec.decode_server, bodies) if found is not None)

    async def find(self, keys: Sequence[ServerKey]) -> Mapping[ServerKey, Server]:
        async with self._lock:
            found = {}
            for key in keys:
                try:
                    bodies = self._socket.ask(Request(self._family(), codec.get_server(key)))
                except NetlinkError as error:
                    if error.code == errno.ESRCH:
                        continue
                    raise
                for body in bodies:
                    decoded = codec.decode_server(body)
                    if decoded is not None:
                        found[key] = decoded[1]
            return found

    async def destinations(self, key: ServerKey) -> Mapping[Target, Destination]:
        async with self._lock:
            bodies = self._dump(codec.get_destinations(key))
            return dict(codec.decode_destination(body, key.family) for body in bodies)

    async def commit(self, changes: Sequence[Change]) -> Sequence[Refusal]:
        if not changes:
            return ()
        async with self._lock:
            requests = [Request(self._family(), codec.encode(change)) for change in changes]
            if len(requests) > MANY:
                codes = await asyncio.to_thread(self._socket.execute, requests)
            else:
                codes = self._socket.execute(requests)
        return [
            Refusal(change, codec.describe(change, code)) for change, code in zip(changes, codes, strict=True) if code
        ]

    async def timeouts(self) -> Timeouts:
        async with self._lock:
            bodies = self._socket.ask(Request(self._family(), codec.generic(codec.GET_CONFIG)))
            return codec.decode_timeouts(bodies[0])

    async def set_timeouts(self, timeouts: Timeouts) -> None:
        async with self._lock:
            (code,) = self._socket.execute([Request(self._family(), codec.encode_timeouts(timeouts))])
        if code:
            raise IpvsError(code, f"IPVS did not take the time-outs {timeouts}: {errno.errorcode.get(code, code)}")

    async def connections(self) -> Sequence[Connection]:
        try:
            text = await asyncio.to_thread(CONNECTIONS.read_text)
        except FileNotFoundError:
            return ()
        return codec.parse_connections(text)
