"""The relay workers of this proxy, and the listening sockets they accept from.

The sockets are opened here and lent to workers, so that a worker that dies loses no client that is not accepted yet:
its successor gets the same sockets.  So do the workers of the next proxy (see `handover`).  Each worker has its own
socket on a port (SO_REUSEPORT), unless one worker must see all connections of the service port (affinity, least
connections).  One set of workers serves both families.
"""

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from svcplane.base.errors import EnvironmentProblem, KernelError, SvcplaneError
from svcplane.base.net import join_host_port
from svcplane.proxy.planes.userspace import handover, wire
from svcplane.proxy.planes.userspace.limits import raise_descriptor_limit
from svcplane.proxy.planes.userspace.process import END_WITHIN_S, Batch, Process

log = logging.getLogger(__name__)
BACKLOG = 4096
DATAGRAM_BUFFER = 4 << 20  # bytes
SO_RCVBUFFORCE = 33
DRAIN_S = 900.0  # for connections, when there is no relay any more
SHORT_LIFE_S, RESPAWN_PAUSE_S = 1.0, 1.0
Slot = tuple[str, bool]  # key of the service port, whether for its local pool


class PortTaken(KernelError):
    """Somebody else listens on that port."""


@dataclass(slots=True)
class Lent:
    """A slot's listening sockets; the socket at an index belongs to the worker of that index, modulo their number."""

    protocol: str
    address: str
    port: int
    sockets: list[socket.socket] = field(default_factory=list)
    #: UDP sessions of another process by index of the socket they are over, until a worker has them
    sessions: dict[int, list[tuple[wire.Session, socket.socket]]] = field(default_factory=dict)


class Workers:
    """See the module's text.  Calls that change anything are serialized by the caller's event loop."""

    def __init__(self, count: int = 0, ports: range = range(0), scope: str = "") -> None:
        """`count` 0: one for each core this process may use, at most four.

        `ports`: on which the relay may listen; empty: on any the kernel gives.  `scope`: workers are taken over from
        proxies of the same network namespace and scope.
        """
        raise_descriptor_limit()
        self._ports, self._scope = ports, scope
        self._count = count or min(4, len(os.sched_getaffinity(0)))
        self._processes: list[Process] = []
        self._services: dict[str, wire.Serve] = {}
        self._lent: dict[Slot, Lent] = {}
        self._taken: set[tuple[str, int]] = set()  # (protocol, port) of ours
        self._moved: set[Slot] = set()  # to another address, of which workers were not told yet
        self._lock = asyncio.Lock()
        self._estate: handover.Estate | None = None
        self._notices: dict[int, int] = {}  # descriptors that tell of a worker's end, by its process id
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def intact(self) -> bool:
        return all(process.is_alive for process in self._processes)

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the workers' processes."""
        return tuple(process.pid for process in self._processes)

    @property
    def slots(self) -> dict[Slot, Lent]:
        return self._lent

    def serves(self, key: str) -> wire.Serve | None:
        return self._services.get(key)

    # -- sockets -------------------------------------------------------------------------------------------------------

    def open(self, slot: Slot, protocol: str, address: str, port: int) -> int:
        """Listen for a slot, on `port` if that is free and not 0, else on another; returns the port.

        Workers are told by `serve`.
        """
        present = self._lent.get(slot)
        if present is not None:
            if present.address == address:
                return present.port
            self._close(slot)
            self._moved.add(slot)
        if (inherited := self._claim(slot, protocol, address)) is not None:
            return inherited.port
        for candidate in (*((port,) if port else ()), *(self._ports or (0,))):
            if (protocol, candidate) in self._taken:  # with SO_REUSEPORT the kernel would let us
                continue
            try:
                # on the port asked for, an earlier proxy's workers may still be listening for this very slot
                first = _listener(protocol, address, candidate, alone=not port or candidate != port)
            except PortTaken:
                continue
            chosen: int = first.getsockname()[1]
            self._lent[slot] = Lent(protocol, address, chosen, [first])
            self._taken.add((protocol, chosen))
            return chosen
        raise EnvironmentProblem(f"no free port at {address} for {slot[0]}: give a wider --proxy-port-range")

    def _claim(self, slot: Slot, protocol: str, address: str) -> Lent | None:
        """The sockets that an earlier proxy had for a slot, where they are at the right address."""
        heirs = self._estate.slots.pop(slot, []) if self._estate is not None else []
        if not heirs:
            return None
        where: tuple[str, int] = heirs[0].listener.getsockname()[:2]
        if where[0] != address or (protocol, where[1]) in self._taken:
            for heir in heirs:
                heir.close()
            return None
        sessions = {index: heir.sessions for index, heir in enumerate(heirs) if heir.sessions}
        found = self._lent[slot] = Lent(protocol, address, where[1], [heir.listener for heir in heirs], sessions)
        self._taken.add((protocol, where[1]))
        return found

    def inherit(self) -> None:
        """Take over what an earlier proxy's workers listen on.  Once; blocks for a moment."""
        if self._estate is None:
            self._estate = handover.take_over(self._scope)
            if self._estate.slots:
                log.info("took over from an earlier proxy: ports=%d", len(self._estate.slots))

    async def take_late(self) -> None:
        """Take over from workers whose proxy has gone only since: those that run beside ours on the same ports."""
        if not handover.waiting(self._scope):
            return
        async with self._lock:
            batches: list[Batch] = [[] for _ in self._processes]
            taken: list[handover.Heir] = []
            for slot, heirs in handover.take_over(self._scope).slots.items():
                lent = self._lent.get(slot)
                for heir in heirs:
                    if lent is None or heir.listener.getsockname()[:2] != (lent.address, lent.port):
                        heir.close()
                        continue
                    batch = batches[self._worker_of(self._services[slot[0]], len(lent.sockets))]
                    batch += [(wire.Listen(*slot), heir.listener), *heir.sessions]
                    lent.sockets.append(heir.listener)
                    taken.append(heir)
            try:
                await self._exchange(batches)
            finally:
                for heir in taken:
                    heir.close_sessions()

    def disinherit(self, prefix: str) -> None:
        """Close what was taken over of services whose key begins so, and is not used."""
        if self._estate is not None:
            self._estate.discard(prefix)

    def _close(self, slot: Slot) -> None:
        gone = self._lent.pop(slot)
        self._moved.discard(slot)
        self._taken.discard((gone.protocol, gone.port))
        for lent in gone.sockets:
            lent.close()
        for sessions in gone.sessions.values():
            for _, end in sessions:
                end.close()

    def _fill(self, slot: Slot, serve: wire.Serve) -> None:
        """A socket for each worker that accepts."""
        lent = self._lent[slot]
        while len(lent.sockets) < (1 if serve.one_worker else self._count):
            lent.sockets.append(_listener(serve.protocol, lent.address, lent.port))

    def _worker_of(self, serve: wire.Serve, index: int) -> int:
        return (sum(serve.key.encode()) if serve.one_worker else index) % self._count

    # -- telling -------------------------------------------------------------------------------------------------------

    async def serve(self, services: Iterable[wire.Serve], opened: Iterable[Slot]) -> None:
        """Tell the workers of services that are new or changed, and lend them the sockets of `opened` slots."""
        async with self._lock:
            await self._revive()
            batches: list[Batch] = [[] for _ in self._processes]
            fresh = dict.fromkeys(opened)
            for serve in services:
                before = self._services.get(serve.key)
                self._services[serve.key] = serve
                for batch in batches:
                    batch.append((serve, None))
                if before is not None and before.one_worker != serve.one_worker:
                    for slot in ((serve.key, False), (serve.key, True)):
                        if slot in self._lent and slot not in fresh:
                            fresh[slot] = None
                            for batch in batches:
                                batch.append((wire.Drop(*slot, shared=True), None))
                recalled = self._estate.affinity.pop(serve.key, ()) if self._estate is not None else ()
                if recalled:
                    batches[self._worker_of(serve, 0)].append((wire.Recall(serve.key, recalled), None))
            for slot in fresh:
                if slot in self._moved:
                    self._moved.discard(slot)
                    for batch in batches:
                        batch.append((wire.Drop(*slot), None))
                self._lend(slot, batches)
            await self._exchange(batches)
            for slot in fresh:
                for sessions in self._lent[slot].sessions.values():
                    for _, end in sessions:
                        end.close()
                self._lent[slot].sessions.clear()

    def _lend(self, slot: Slot, batches: list[Batch]) -> None:
        serve = self._services[slot[0]]
        self._fill(slot, serve)
        for index, lent in enumerate(self._lent[slot].sockets):
            batch = batches[self._worker_of(serve, index)]
            batch.append((wire.Listen(*slot), lent))
            batch += self._lent[slot].sessions.get(index, ())

    async def drop(self, slots: Iterable[Slot], services: Iterable[str]) -> None:
        """Close the sockets of slots, and forget services."""
        async with self._lock:
            messages: list[wire.ToWorker] = []
            for slot in slots:
                if slot in self._lent:
                    self._close(slot)
                    messages.append(wire.Drop(*slot))
            for key in services:
                for slot in ((key, False), (key, True)):
                    if slot in self._lent:
                        self._close(slot)
                if self._services.pop(key, None) is not None:
                    messages.append(wire.Remove(key))
            if messages and self._processes:
                await self._exchange([[(message, None) for message in messages] for _ in self._processes])

    async def tell(self, message: wire.ToWorker) -> None:
        async with self._lock:
            if self._processes:
                await self._exchange([[(message, None)] for _ in self._processes])

    async def ask(self, what: wire.Ask) -> list[wire.Answer]:
        async with self._lock:
            return await self._exchange([[(what, None)] for _ in self._processes])

    async def _exchange(self, batches: Sequence[Batch]) -> list[wire.Answer]:
        jobs = [
            asyncio.to_thread(process.exchange, batch)
            for process, batch in zip(self._processes, batches, strict=True)
            if batch
        ]
        found = await asyncio.gather(*jobs, return_exceptions=True)
        answers: list[wire.Answer] = []
        for result in found:
            if isinstance(result, BaseException):
                raise result
            answers += result
        return answers

    async def _revive(self) -> None:
        """Start the workers that are not there, and tell those what the others know."""
        dead = [index for index, process in enumerate(self._processes) if not process.is_alive]
        for index in dead:
            gone = self._processes[index]
            log.warning("relay worker %d ended, starting another", gone.pid)
            gone.end(0.1)
            if time.monotonic() - gone.began < SHORT_LIFE_S:
                await asyncio.sleep(RESPAWN_PAUSE_S)
            self._processes[index] = self._start()
        missing = range(len(self._processes), self._count)
        self._processes += [self._start() for _ in missing]
        if not self._services or not dead:
            return
        batches: list[Batch] = [[] for _ in self._processes]
        for serve in self._services.values():
            for batch in batches:
                batch.append((serve, None))
        for slot in self._lent:
            self._lend(slot, batches)
        await self._exchange([batch if index in dead else [] for index, batch in enumerate(batches)])

    def _start(self) -> Process:
        """A worker, whose end will be noticed."""
        process, loop = Process(self._scope), asyncio.get_running_loop()
        notice = self._notices[process.pid] = process.exit_notice()

        def ended() -> None:
            self._forget_notice(process.pid)
            task = loop.create_task(self._mend())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        loop.add_reader(notice, ended)
        return process

    def _forget_notice(self, pid: int) -> None:
        notice = self._notices.pop(pid, None)
        if notice is not None:
            asyncio.get_running_loop().remove_reader(notice)
            os.close(notice)

    async def _mend(self) -> None:
        """A worker ended: another one goes on with its sockets."""
        try:
            async with self._lock:
                if self._processes:
                    await self._revive()
        except SvcplaneError as error:
            log.error("a relay worker is missing until the next sync: %s", error)

    # -- ending --------------------------------------------------------------------------------------------------------

    async def close(self, drain_s: float = 0.0) -> None:
        """End the workers and close the sockets.  `drain_s`: how long open connections may still go on."""
        processes = self._dismiss()
        if drain_s:
            for process in processes:
                with suppress(KernelError):
                    await asyncio.to_thread(process.exchange, [(wire.Drain(drain_s), None)])
        await asyncio.gather(*(asyncio.to_thread(process.end, drain_s + END_WITHIN_S) for process in processes))

    def let_go(self) -> None:
        """Leave the workers, with their sockets, to the next proxy, as the end of this process does."""
        for process in self._dismiss():
            process.let_go()

    def retire(self) -> None:
        """Close the sockets; the workers end on their own with their last connections."""
        for process in self._dismiss():
            process.let_go(DRAIN_S)

    def _dismiss(self) -> list[Process]:
        """Forget everything; the workers that there were."""
        processes, self._processes = self._processes, []
        for process in processes:
            self._forget_notice(process.pid)
        for task in self._tasks:
            task.cancel()
        for slot in list(self._lent):
            self._close(slot)
        self._services.clear()
        return processes


def _listener(protocol: str, address: str, port: int, *, alone: bool = False) -> socket.socket:
    """Raises PortTaken, or EnvironmentProblem.

    `alone`: a port that no socket has yet.  With SO_REUSEPORT, UDP would be given, also by the kernel's own choice, one
    of ours, or one over which a worker goes on with sessions of a slot that is gone, and share its datagrams.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
    end = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_DGRAM:
            with suppress(PermissionError):  # then it is as large as net.core.rmem_default
                end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, DATAGRAM_BUFFER)
        else:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # accepted sockets inherit these two
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        apart = alone and kind == socket.SOCK_DGRAM
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, not apart)
        if family == socket.AF_INET6:
            end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        end.bind((address, port))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if kind == socket.SOCK_STREAM:
            end.listen(BACKLOG)
    except OSError as error:
        end.close()
        where = join_host_port(address, port)
        if port and error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise PortTaken(f"{where} is taken") from error
        raise EnvironmentProblem(f"cannot listen on {where} for a Service: {error.strerror or error}") from error
    return end
