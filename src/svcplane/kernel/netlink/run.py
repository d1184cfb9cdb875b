"""A netlink socket of this network namespace: I/O only.

Requests are pipelined: many go out before the first answer is read, within what the receive buffer holds.
"""

import errno
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from svcplane.base.errors import EnvironmentProblem, KernelError
from svcplane.kernel.netlink import codec

ROUTE, NETFILTER, GENERIC = 0, 12, 16
SOL_NETLINK, NETLINK_CAP_ACK = 270, 10
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER = 4 << 20
PIPELINE, PIPELINE_BYTES = 200, 96 << 10  # what one send and the answers to it may be
TIMEOUT_S = 60
DUMP_TRIES = 10
DUMP_INTERRUPTED = 0x10


class NetlinkError(KernelError):
    """The kernel refused a request; `code` is the error number."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Request:
    """A message without its sequence number; `flags` besides REQUEST and ACK."""

    kind: int
    body: bytes
    flags: int = 0


class NetlinkSocket:
    """One caller at a time; calls block, for the kernel's time only.  Opened on first use."""

    def __init__(self, protocol: int, what: str) -> None:
        """`what` names the subsystem in errors."""
        self._protocol, self._what = protocol, what
        self._opened: socket.socket | None = None
        self._seq = 0

    def _socket(self) -> socket.socket:
        if self._opened is None:
            try:
                opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self._protocol)
                opened.bind((0, 0))
            except OSError as error:
                raise EnvironmentProblem(f"{self._what}: netlink socket: {error.strerror}") from error
            opened.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
            try:
                opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
            except PermissionError:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            opened.settimeout(TIMEOUT_S)
            self._opened = opened
        return self._opened

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def execute(self, requests: Sequence[Request]) -> list[int]:
        """Send all; the error number of each, 0 where the kernel took it."""
        codes: list[int] = []
        part: list[Request] = []
        size = 0
        for request in requests:
            if part and (len(part) == PIPELINE or size + len(request.body) > PIPELINE_BYTES):
                codes += self._execute(part)
                part, size = [], 0
            part.append(request)
            size += len(request.body) + 16
        return codes + (self._execute(part) if part else [])

    def _execute(self, requests: Sequence[Request]) -> list[int]:
        first = self._seq + 1
        self._seq += len(requests)
        flags = codec.NLM_F_REQUEST | codec.NLM_F_ACK
        parts = [
            codec.message(request.kind, request.flags | flags, first + index, request.body)
            for index, request in enumerate(requests)
        ]
        opened = self._socket()
        self._send(opened, b"".join(parts))
        codes: dict[int, int] = {}
        while len(codes) < len(requests):
            for kind, _, seq, body in codec.messages(opened.recv(RECEIVE_BUFFER)):
                if kind == codec.NLMSG_ERROR and seq >= first:
                    codes[seq] = -struct.unpack_from("=i", body)[0]
        if any(code in (errno.EPERM, errno.EACCES) for code in codes.values()):
            raise EnvironmentProblem(f"{self._what}: changing it needs the capability NET_ADMIN; run as root")
        return [codes[first + index] for index in range(len(requests))]

    def _send(self, opened: socket.socket, data: bytes) -> None:
        try:
            opened.send(data)
        except OSError as error:
            raise KernelError(f"{self._what}: {error.strerror}") from error

    def ask(self, request: Request) -> list[bytes]:
        """The bodies that answer: one message for a plain request, many for one with NLM_F_DUMP.

        Raises NetlinkError for what the kernel refuses.
        """
        for _ in range(DUMP_TRIES):
            bodies = self._ask(request)
            if bodies is not None:
                return bodies
        raise KernelError(f"{self._what}: it changed again and again while it was read")

    def _ask(self, request: Request) -> list[bytes] | None:
        """None where a dump was interrupted by a change."""
        self._seq += 1
        wanted, opened, whole = self._seq, self._socket(), True
        is_dump = request.flags & codec.NLM_F_DUMP == codec.NLM_F_DUMP
        flags = codec.NLM_F_REQUEST | (0 if is_dump else codec.NLM_F_ACK)
        self._send(opened, codec.message(request.kind, request.flags | flags, wanted, request.body))
        bodies: list[bytes] = []
        while True:
            for kind, got_flags, seq, body in codec.messages(opened.recv(RECEIVE_BUFFER)):
                if seq != wanted:
                    continue
                whole &= not got_flags & DUMP_INTERRUPTED
                if kind in (codec.NLMSG_ERROR, codec.NLMSG_DONE):
                    self._check(-struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0)
                    return bodies if whole else None
                bodies.append(body)

    def _check(self, code: int) -> None:
        if code in (errno.EPERM, errno.EACCES):
            raise EnvironmentProblem(f"{self._what}: reading it needs the capability NET_ADMIN; run as root")
        if code:
            raise NetlinkError(code, f"{self._what}: {os.strerror(code)}")
