"""The kernel's nf_tables through one netlink socket: I/O only.

The socket belongs to the network namespace it was opened in.  A transaction is one `sendmsg`; the kernel
commits inside that call.  Small ones run on the event loop (tens of microseconds), large ones in a thread.
"""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Mapping, Sequence

from svcplane.base.errors import EnvironmentProblem
from svcplane.kernel.netlink import codec as netlink
from svcplane.kernel.nft import codec
from svcplane.kernel.nft.events import NETLINK_NETFILTER, TableEvents
from svcplane.kernel.nft.listing import listed
from svcplane.kernel.nft.objects import (
    Change,
    Element,
    GenerationChanged,
    NftError,
    Rule,
    Set,
    TableContent,
    TableName,
)

SOL_NETLINK, NETLINK_EXT_ACK, NETLINK_CAP_ACK = 270, 11, 10
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
RECEIVE_BUFFER = 4 << 20
#: An acknowledgement or the generation; memory for a dump would be mapped and given back each time.
ANSWER_BUFFER = 64 << 10
LARGE_BATCH = 256 << 10
DUMP_TRIES = 20


class NftSocket:
    """Implements `objects.Nft` on the kernel.  One caller at a time (an internal lock sees to it)."""

    def __init__(self) -> None:
        """Open the socket.  Raises EnvironmentProblem without the privilege or the kernel's support."""
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
            self._socket.bind((0, 0))
        except OSError as error:
            raise EnvironmentProblem(
                f"nf_tables netlink socket: {error.strerror}; is nf_tables in this kernel?"
            ) from error
        for option in (NETLINK_EXT_ACK, NETLINK_CAP_ACK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        self._force(SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._socket.settimeout(60)
        self._seq = 0
        self._lock = asyncio.Lock()
        self._events: TableEvents | None = None

    def _force(self, forced: int, plain: int, size: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, forced, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, plain, size)

    def _next_seq(self, count: int = 1) -> int:
        first = self._seq + 1
        self._seq = (self._seq + count) & 0x7FFFFFFF
        return first

    async def close(self) -> None:
        self._socket.close()
        if self._events is not None:
            self._events.close()

    # -- who changes what --------------------------------------------------------------------------------------

    async def listen(self) -> None:
        async with self._lock:
            if self._events is None:
                try:
                    self._events = TableEvents(self._generation)
                except OSError as error:
                    raise EnvironmentProblem(f"nf_tables notifications: {error.strerror}") from error

    async def unchanged(self, table: TableName, since: int, until: int) -> bool:
        return self._events is not None and self._events.unchanged(table, since, until)

    # -- transactions ----------------------------------------------------------------------------------------

    async def commit(self, table: TableName, changes: tuple[Change, ...], generation: int | None = None) -> int:
        """See `objects.Nft.commit`.  Permission problems are EnvironmentProblem."""
        async with self._lock:
            batch, where = self._encode(table, changes, generation)
            if len(batch) > LARGE_BATCH:
                await asyncio.to_thread(self._send_batch, batch, where)
            else:
                self._send_batch(batch, where)
            return generation + 1 if generation is not None else self._generation()

    def _encode(
        self, table: TableName, changes: tuple[Change, ...], generation: int | None
    ) -> tuple[bytes, dict[int, Change]]:
        begin = self._next_seq()
        parts = [codec.batch_begin(begin, generation)]
        where: dict[int, Change] = {}
        seq = begin
        for change in changes:
            for message in codec.encode_change(table, change, 0):
                seq += 1
                where[seq] = change
                parts.append(message[:8] + struct.pack("=I", seq) + message[12:])
        parts.append(codec.batch_end(seq + 1))
        self._seq = seq + 1
        # one acknowledgement, of the last change, tells that the whole was committed
        if len(parts) > 2:
            last = bytearray(parts[-2])
            flags = int.from_bytes(last[6:8], "little" if struct.pack("=H", 1)[0] else "big")
            last[6:8] = struct.pack("=H", flags | codec.NLM_F_ACK)
            parts[-2] = bytes(last)
        return b"".join(parts), where

    def _send_batch(self, batch: bytes, where: dict[int, Change]) -> None:
        if not where:
            return
        if len(batch) > 100_000:
            self._force(SO_SNDBUFFORCE, socket.SO_SNDBUF, len(batch) + 65536)
        try:
            self._socket.send(batch)
        except OSError as error:
            raise NftError(
                error.errno or 0, f"nf_tables transaction of {len(batch)} bytes: {error.strerror}"
            ) from error
        last = max(where)
        while True:
            for kind, _, seq, body in netlink.messages(self._socket.recv(ANSWER_BUFFER)):
                if kind != codec.NLMSG_ERROR:
                    continue
                code = -struct.unpack_from("=i", body)[0]
                if code:
                    self._drain()
                    raise _translated(code, where.get(seq), body)
                if seq == last:
                    return

    def _drain(self) -> None:
        """Drop further errors of the same failed batch."""
        self._socket.setblocking(False)
        try:
            while self._socket.recv(ANSWER_BUFFER):
                pass
        except BlockingIOError:
            pass
        finally:
            self._socket.settimeout(60)

    # -- reading -----------------------------------------------------------------------------------------------

    async def generation(self) -> int:
        async with self._lock:
            return self._generation()

    def _generation(self) -> int:
        seq = self._next_seq()
        self._socket.send(codec.request(codec.GETGEN, 0, seq, None))
        for kind, _, got, body in netlink.messages(self._socket.recv(ANSWER_BUFFER)):
            if got != seq:
                continue
            if kind == codec.NLMSG_ERROR:
                code = -struct.unpack_from("=i", body)[0]
                if code in (errno.EPERM, errno.EACCES):
                    raise EnvironmentProblem("reading nf_tables needs the capability NET_ADMIN; run as root")
                raise EnvironmentProblem(f"this kernel does not offer nf_tables: {os.strerror(code)}")
            return codec.number(codec.attributes(body, 4)[1])
        raise NftError(errno.EPROTO, "nf_tables did not answer the generation request")

    def _dump(self, kind: int, family: int, payload: bytes = b"", *, single: bool = False) -> list[bytes]:
        seq = self._next_seq()
        flags = 0 if single else codec.NLM_F_DUMP
        self._socket.send(codec.message(codec.SUBSYS << 8 | kind, flags | codec.NLM_F_ACK, seq, family, payload))
        bodies: list[bytes] = []
        while True:
            for got_kind, _, got, body in netlink.messages(self._socket.recv(RECEIVE_BUFFER)):
                if got != seq:
                    continue
                if got_kind in (codec.NLMSG_DONE, codec.NLMSG_ERROR):
                    code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                    if code == errno.ENOENT:
                        return []
                    if code:
                        raise NftError(code, f"reading nf_tables: {os.strerror(code)}")
                    return bodies
                bodies.append(body[4:])

    async def tables(self) -> tuple[TableName, ...]:
        async with self._lock:
            found = []
            for family, number in codec.NFPROTO.items():
                for body in self._dump(codec.GETTABLE, number):
                    found.append(TableName(family, codec.string(codec.attributes(body)[1])))
            return tuple(found)

    async def read(self, table: TableName, *, elements: bool = True) -> TableContent | None:
        async with self._lock:
            for _ in range(DUMP_TRIES):
                before = self._generation()
                content = await asyncio.to_thread(self._read, table, elements)
                if self._generation() == before:
                    return content
            raise NftError(errno.EBUSY, "nf_tables changed again and again while it was read")

    def _read(self, table: TableName, elements: bool) -> TableContent | None:
        number = codec.NFPROTO[table.family]
        named = netlink.text(1, table.name)
        there = dict(codec.decode_table(body) for body in self._dump(codec.GETTABLE, number))
        if table.name not in there:
            return None
        content = TableContent(dormant=there[table.name])
        for body in self._dump(codec.GETCHAIN, number):
            owner, chain = codec.decode_chain(body)
            if owner == table.name:
                content.chains[chain.name] = chain
        rules: dict[str, list[Rule]] = {name: [] for name in content.chains}
        for body in self._dump(codec.GETRULE, number, named):
            owner, chain_name, rule = codec.decode_rule(body)
            if owner == table.name and chain_name in rules:
                rules[chain_name].append(rule)
        content.rules = {name: tuple(found) for name, found in rules.items()}
        for body in self._dump(codec.GETSET, number, named):
            owner, spec = codec.decode_set(body)
            if owner == table.name:
                content.sets[spec.name] = spec
        if elements:
            content.elements = {spec.name: self._elements(table, spec) for spec in content.sets.values()}
        return content

    async def read_elements(self, table: TableName, set_: Set) -> Mapping[bytes, Element]:
        async with self._lock:
            return await asyncio.to_thread(self._elements, table, set_)

    async def listed(self, table: TableName) -> Mapping[str, Sequence[str]]:
        return await listed(table)

    def _elements(self, table: TableName, spec: Set) -> dict[bytes, Element]:
        payload = netlink.text(1, table.name) + netlink.text(2, spec.name)
        found: dict[bytes, Element] = {}
        for body in self._dump(codec.GETSETELEM, codec.NFPROTO[table.family], payload):
            for element in codec.decode_elements(body):
                found[element.key] = element
        return found


def _translated(code: int, change: Change | None, body: bytes) -> Exception:
    if code in (errno.EPERM, errno.EACCES):
        return EnvironmentProblem("changing nf_tables needs the capability NET_ADMIN; run as root")
    if code == errno.ERESTART:
        return GenerationChanged(code, "somebody else changed nf_tables at the same time")
    # extended acknowledgement: attributes after the copied header (capped to sixteen bytes)
    detail = codec.string(codec.attributes(body, 20).get(1, b"")) if len(body) > 20 else ""
    what = describe(change) if change is not None else "the transaction"
    return NftError(code, f"nf_tables refused {what}: {os.strerror(code)}" + (f" ({detail})" if detail else ""))


def describe(change: Change) -> str:
    """A change in a few words, for errors."""
    text = repr(change)
    return text if len(text) < 160 else text[:160] + "..."
