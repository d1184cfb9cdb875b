"""The kernel's sets through netlink: I/O only.  The socket belongs to the network namespace of its first use."""

import asyncio
import errno
from collections.abc import Iterable, Mapping

from svcplane.base.errors import EnvironmentProblem
from svcplane.kernel.ipset import codec
from svcplane.kernel.ipset.objects import Entry, IpsetError, Set, Size
from svcplane.kernel.netlink.codec import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL
from svcplane.kernel.netlink.run import NETFILTER, NetlinkError, NetlinkSocket, Request

MANY = 2000


class IpsetSocket:
    """Implements `objects.Ipset`."""

    def __init__(self) -> None:
        self._socket = NetlinkSocket(NETFILTER, "ipset")
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        self._socket.close()

    async def available(self) -> bool:
        async with self._lock:
            try:
                self._ask(codec.LIST, codec.body(None), dump=True)
            except (NetlinkError, EnvironmentProblem):
                return False
            return True

    def _ask(self, command: int, body: bytes, *, dump: bool = False) -> list[bytes]:
        return self._socket.ask(Request(codec.kind(command), body, NLM_F_DUMP if dump else 0))

    async def read(self, names: Iterable[str]) -> Mapping[str, tuple[Set, frozenset[Entry]]]:
        async with self._lock:
            found = {}
            for name in names:
                content = self._read(name)
                if content is not None:
                    found[name] = content
            return found

    def _read(self, name: str) -> tuple[Set, frozenset[Entry]] | None:
        try:
            answers = self._ask(codec.LIST, codec.named(name), dump=True)
        except NetlinkError as error:
            if error.code == errno.ENOENT:
                return None
            raise IpsetError(f"reading set {name}: {codec.reason(error.code)}") from error
        set_: Set | None = None
        entries: list[Entry] = []
        for answer in answers:
            _, header = codec.decode_header(answer)
            set_ = header or set_
            if set_ is not None and set_.type:
                entries += codec.decode_entries(answer, set_.type)
        return (set_, frozenset(entries)) if set_ is not None else None

    async def sizes(self, names: Iterable[str]) -> Mapping[str, Size]:
        async with self._lock:
            found = {}
            for name in names:
                try:
                    answers = self._ask(codec.LIST, codec.header_of(name), dump=True)
                except NetlinkError as error:
                    if error.code == errno.ENOENT:
                        continue
                    raise IpsetError(f"reading set {name}: {codec.reason(error.code)}") from error
                found[name] = codec.decode_size(answers[0])
            return found

    async def create(self, set_: Set) -> None:
        async with self._lock:
            try:
                answer = self._ask(codec.TYPE, codec.type_request(set_))
            except NetlinkError as error:
                raise EnvironmentProblem(
                    f"this kernel has no ipset type {set_.type} (ip_set and its modules)"
                ) from error
            self._do(
                codec.CREATE, [codec.create(set_, codec.revision(answer[0]))], set_.name, NLM_F_CREATE | NLM_F_EXCL
            )

    def _do(self, command: int, bodies: list[bytes], name: str, flags: int = 0) -> None:
        codes = self._socket.execute([Request(codec.kind(command), body, flags) for body in bodies])
        for code in codes:
            if code:
                raise IpsetError(f"set {name}: {codec.reason(code)}")

    async def add(self, set_: Set, entries: Iterable[Entry]) -> None:
        await self._change(codec.ADD, set_, entries)

    async def delete(self, set_: Set, entries: Iterable[Entry]) -> None:
        await self._change(codec.DEL, set_, entries)

    async def _change(self, command: int, set_: Set, entries: Iterable[Entry]) -> None:
        bodies = list(codec.change(set_, entries))
        async with self._lock:
            if len(bodies) * codec.PART > MANY:
                await asyncio.to_thread(self._do, command, bodies, set_.name)
            else:
                self._do(command, bodies, set_.name)

    async def destroy(self, name: str) -> None:
        async with self._lock:
            (code,) = self._socket.execute([Request(codec.kind(codec.DESTROY), codec.named(name))])
        if code and code != errno.ENOENT:
            raise IpsetError(f"set {name} cannot be removed: {codec.reason(code)}")
