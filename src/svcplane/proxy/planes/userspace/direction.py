"""One direction of a relayed TCP connection.

Small reads are copied.  A direction that reads full buffers twice in a row is spliced through a pipe, and copied
again when its reads get small.  At most one buffer or one pipe waits for a target that does not read; meanwhile
the source is not read either.
"""

import _socket
import os
import socket
from typing import TYPE_CHECKING

from svcplane.proxy.planes.userspace.pipes import Pipe

if TYPE_CHECKING:
    from svcplane.proxy.planes.userspace.link import Link

READ_SIZE = 65_536
STEPS = 16  # reads before others have their turn
SPLICE_TURN = 4 << 20  # bytes before others have their turn
SPLICE_AFTER = 2  # full reads in a row
SPLICE_LEAST = 16_384  # reads below it, some in a row, are copied again
NOW = socket.MSG_DONTWAIT
LAST = socket.MSG_DONTWAIT | socket.MSG_MORE  # the end follows at once, and goes out in the same packet
SPLICE_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Direction:
    """Bytes from `source` to `target`.  `readable` and `writable`: what epoll told and no call has disproved."""

    __slots__ = (
        "_streak",
        "armed",
        "closing",
        "ended",
        "goes_to",
        "link",
        "moved",
        "pending",
        "pipe",
        "piped",
        "readable",
        "receiving",
        "recv",
        "seen",
        "send",
        "shut",
        "source",
        "target",
        "token",
        "writable",
    )

    def __init__(self, link: "Link", source: _socket.socket | None, target: _socket.socket | None) -> None:
        self.link = link
        self.readable = self.writable = False
        self.armed = False  # whether epoll tells when the target takes more
        self.closing = False  # the source's peer has sent its end, which may not have been read yet
        self.ended = self.shut = False  # the end was read; it was passed on
        self.pending = b""
        self.pipe: Pipe | None = None
        self.piped = 0  # bytes in the pipe
        self._streak = 0  # full reads in a row; while splicing, small ones
        self.moved = 0
        self.receiving = False  # in the exchange, as the next three
        self.seen = 0.0
        self.token = self.goes_to = 0
        self.set_source(source)
        self.set_target(target)

    def set_source(self, source: _socket.socket | None) -> None:
        self.source = source
        self.recv = source.recv if source is not None else None

    def set_target(self, target: _socket.socket | None) -> None:
        self.target = target
        self.armed = False
        self.send = target.send if target is not None else None

    @property
    def waiting(self) -> bool:
        """Whether there is something to do as soon as the target takes it."""
        return bool(self.pending) or self.readable or self.piped > 0 or (self.ended and not self.shut)

    @property
    def at_rest(self) -> bool:
        """Whether all that came was passed on, and more may come."""
        return self.writable and not (self.pending or self.ended or self.closing or self.shut or self.pipe)

    def arrived(self) -> None:
        """More has come, and the source's end has not.  The usual takes the shortest way: less than a buffer is read,
        and all of it is sent.  Raises as `pump` does."""
        self.readable = True
        recv, send = self.recv, self.send
        if self.pending or not self.writable or self.closing or self.pipe is not None or recv is None or send is None:
            self.pump()
            return
        if self.link.keeps_request or self.link.urgent:
            self.pump()
            return
        try:
            data = recv(READ_SIZE, NOW)
        except BlockingIOError:
            self.readable = False
            return
        size = len(data)
        if not 0 < size < READ_SIZE:
            if self._passed(data):
                self.pump()
            return
        self.readable = False
        self.moved += size
        self._streak = 0
        try:
            sent = send(data, NOW)
        except BlockingIOError:
            sent = 0
        if sent < size:
            self._hold(data[sent:])

    def pump(self) -> None:
        """Move what can be moved.  Raises OSError where a socket is broken; `link` learns of the end."""
        if self.pipe is not None:
            self._pump_pipe()
            return
        recv = self.recv
        if recv is None or self.send is None:
            return
        for _ in range(STEPS):
            if self.pending and not self._flush():
                return
            if self.ended:
                self.link.ended(self)
                return
            if not self.readable:
                return
            try:
                data = recv(READ_SIZE, NOW)
            except BlockingIOError:
                self.readable = False
                return
            if not self._passed(data):
                return
        self.link.continue_later()

    def _passed(self, data: bytes) -> bool:
        """Pass on what was read; whether there may be more to do at once."""
        size, link = len(data), self.link
        if not size:
            self.ended = True
            link.ended(self)
            return False
        if link.keeps_request:
            link.keep(self, data)
        self.moved += size
        last = size < READ_SIZE and self.closing and not link.urgent  # the end was there before we read
        if self.writable and self.send is not None:
            try:
                sent = self.send(data, LAST if last else NOW)
            except BlockingIOError:
                sent = 0
            if sent < size:
                self._hold(data[sent:])
        else:
            self._hold(data)
        if last:
            self.ended = True
            return True
        if size < READ_SIZE:
            self._streak = 0
            self.readable = self.closing or link.urgent
            return self.readable  # else all was read
        self._streak += 1
        if self._streak >= SPLICE_AFTER and not self.pending and self._begin_splicing():
            link.continue_later()
            return False
        return True

    def _hold(self, data: bytes) -> None:
        """The target does not take this yet."""
        self.pending, self.writable = data, False
        if not self.armed:
            self.link.arm(self)

    def _flush(self) -> bool:
        """Whether nothing waits any more."""
        if not self.writable or self.send is None:
            return False
        try:
            sent = self.send(self.pending, NOW)
        except BlockingIOError:
            sent = 0
        self.pending = self.pending[sent:]
        if self.pending:
            self._hold(self.pending)
            return False
        return True

    # -- splicing ------------------------------------------------------------------------------------------------------

    def _begin_splicing(self) -> bool:
        self._streak = 0
        if self.link.keeps_request or self.link.urgent or self.source is None or self.target is None:
            return False
        self.pipe = self.link.relay.pipes.take()
        if self.pipe is None:
            return False
        for end in (self.source, self.target):
            os.set_blocking(end.fileno(), False)  # splice has no flag for the socket's side
        return True

    def _pump_pipe(self) -> None:
        pipe, source, target = self.pipe, self.source, self.target
        if pipe is None or source is None or target is None:
            return
        source_fd, target_fd, splice = source.fileno(), target.fileno(), os.splice
        reader, writer, size = pipe.reader, pipe.writer, pipe.size
        enough = self.moved + SPLICE_TURN
        while True:
            if self.piped:
                if not self.writable:
                    return
                try:
                    self.piped -= splice(reader, target_fd, self.piped, None, None, SPLICE_FLAGS)
                except BlockingIOError:
                    self.writable = False
                    if not self.armed:
                        self.link.arm(self)
                    return
                continue
            if self._streak > SPLICE_AFTER or self.ended or self.link.urgent:  # a splice ends at urgent data
                break
            if not self.readable:
                return
            if self.moved >= enough:
                self.link.continue_later()
                return
            try:
                got = splice(source_fd, writer, size, None, None, SPLICE_FLAGS)
            except BlockingIOError:
                self.readable = False
                return
            self.piped = got
            self.moved += got
            self.ended = not got
            self._streak = self._streak + 1 if got < SPLICE_LEAST else 0
        self._streak = 0
        self.release_pipe()
        self.pump()

    def release_pipe(self) -> None:
        if self.pipe is not None:
            self.link.relay.pipes.give_back(self.pipe, dirty=self.piped > 0)
            self.pipe, self.piped = None, 0
