"""An io_uring for sockets that take turns: one system call receives and sends for many of them.

Every socket is received from until that is cancelled (`IORING_RECV_MULTISHOT`), into buffers that the kernel takes
from a ring of ours; what came is sent from there, without being copied to an object of Python.  A send is done or has
failed when it is submitted (`MSG_DONTWAIT`), and only the failed are told of (`IOSQE_CQE_SKIP_SUCCESS`); so the
buffers of one round are free after the next.  Needs Linux 6.1; many containers forbid it.

Source: linux/io_uring.h, io_uring_setup(2), io_uring_enter(2).
"""

import ctypes
import errno
import mmap
import os
import select
import socket
import struct
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

SETUP, ENTER, REGISTER = 425, 426, 427  # system calls, the same on all architectures but alpha and mips
IORING_SETUP_CQSIZE, IORING_SETUP_SUBMIT_ALL = 1 << 3, 1 << 7
IORING_SETUP_SINGLE_ISSUER, IORING_SETUP_DEFER_TASKRUN = 1 << 12, 1 << 13
IORING_FEAT_SINGLE_MMAP, IORING_FEAT_NODROP, IORING_FEAT_EXT_ARG = 1 << 0, 1 << 1, 1 << 8
IORING_SQ_CQ_OVERFLOW = 1 << 1
IORING_ENTER_GETEVENTS, IORING_ENTER_EXT_ARG = 1 << 0, 1 << 3
IORING_REGISTER_PBUF_RING = 22
IORING_OFF_SQES = 0x10000000
IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL, IORING_OP_SEND, IORING_OP_RECV = 6, 14, 26, 27
IOSQE_BUFFER_SELECT, IOSQE_CQE_SKIP_SUCCESS = 1 << 5, 1 << 6
IORING_RECV_MULTISHOT = 1 << 1
IORING_CQE_F_BUFFER, IORING_CQE_F_MORE = 1 << 0, 1 << 1
GOES_ON = IORING_CQE_F_BUFFER | IORING_CQE_F_MORE

SUBMISSIONS, COMPLETIONS = 1024, 4096
BUFFERS, BUFFER_SIZE = 256, 16_384
#: All of it or a failure, now.
SEND_FLAGS = socket.MSG_NOSIGNAL | socket.MSG_WAITALL | socket.MSG_DONTWAIT
SEND, CANCEL = 1 << 40, 1 << 41  # what tells completions apart; tokens of receives and polls are below
U32 = 0xFFFFFFFF

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype, _syscall.argtypes = ctypes.c_long, [ctypes.c_long] * 7
_completions = struct.Struct("<QiI").iter_unpack


class Flow(Protocol):
    """From one socket to another, which is `goes_to`.  `seen`: the last round in which it had more."""

    goes_to: int
    moved: int
    seen: float


AnyFlow = TypeVar("AnyFlow", bound=Flow)


@dataclass(frozen=True, slots=True)
class Left:
    """A completion that is not of the usual kind.  `size` is a number of bytes, or an errno below 0.

    `sent`: a send of the flow took only `size` bytes, and `data` is the rest.  Else `data` has been received.
    `more`: the receive goes on.
    """

    token: int
    size: int
    data: bytes
    sent: bool
    more: bool


def _call(number: int, *arguments: int) -> int:
    result: int = _syscall(number, *arguments, *(0,) * (6 - len(arguments)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


class Ring:
    """See the module's text.  For one thread.  Raises OSError where the kernel is too old or forbids it."""

    def __init__(self) -> None:
        if sys.byteorder != "little":
            raise OSError(errno.ENOSYS, "entries are written as little-endian machines have them")
        parameters = (ctypes.c_uint32 * 30)()  # struct io_uring_params
        parameters[1] = COMPLETIONS
        parameters[2] = (
            IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN
        )
        self._descriptor = _call(SETUP, SUBMISSIONS, ctypes.addressof(parameters))
        try:
            features = parameters[5]
            for needed in (IORING_FEAT_SINGLE_MMAP, IORING_FEAT_NODROP, IORING_FEAT_EXT_ARG):
                if not features & needed:
                    raise OSError(errno.ENOSYS, "io_uring lacks what is needed")
            self._moment = (ctypes.c_int64 * 2)()  # struct __kernel_timespec
            self._within = (ctypes.c_uint64 * 3)(0, 0, ctypes.addressof(self._moment))  # struct io_uring_getevents_arg
            self._within_at = ctypes.addressof(self._within)
            self._map(list(parameters))
            self._register_buffers()
        except BaseException:
            os.close(self._descriptor)
            raise

    def _map(self, parameters: list[int]) -> None:
        submissions, completions = parameters[0], parameters[1]
        _, sq_tail, _, _, sq_flags, _, sq_array = parameters[10:17]
        cq_head, cq_tail, _, _, _, entries = parameters[20:26]
        size = max(sq_array + submissions * 4, entries + completions * 16)
        ring = memoryview(mmap.mmap(self._descriptor, size))
        self._counters = ring[: size & ~3].cast("I")
        self._entries = ring[entries : entries + completions * 16]
        self._order = self._counters[sq_array // 4 : sq_array // 4 + submissions]
        slots = memoryview(mmap.mmap(self._descriptor, submissions * 64, offset=IORING_OFF_SQES))
        self._words, self._halves = slots.cast("Q"), slots.cast("I")
        self._sq_tail_at, self._cq_head_at, self._cq_tail_at = sq_tail // 4, cq_head // 4, cq_tail // 4
        self._sq_flags_at = sq_flags // 4
        self._sq_mask, self._cq_mask = submissions - 1, completions - 1
        self._tail = self._submitted = self._head = 0
        self.settled = True  # whether the last round knew what became of all sends before it

    def _register_buffers(self) -> None:
        self._memory, self._ring = mmap.mmap(-1, BUFFERS * BUFFER_SIZE), mmap.mmap(-1, BUFFERS * 16)
        self._held = [ctypes.c_char.from_buffer(part) for part in (self._memory, self._ring)]
        start, ring_start = map(ctypes.addressof, self._held)
        self._addresses = [start + number * BUFFER_SIZE for number in range(BUFFERS)]
        self._tokens = [0] * BUFFERS  # of what was sent from them
        for number, address in enumerate(self._addresses):  # its send, but for where to and how much
            at = number * 8
            self._words[at] = IORING_OP_SEND | IOSQE_CQE_SKIP_SUCCESS << 8
            self._words[at + 2], self._words[at + 3] = address, SEND_FLAGS << 32
            self._words[at + 4] = SEND | number
        self._next_slot = 0
        request = (ctypes.c_uint64 * 5)(ring_start, BUFFERS)  # struct io_uring_buf_reg, of group 0
        _call(REGISTER, self._descriptor, IORING_REGISTER_PBUF_RING, ctypes.addressof(request), 1)
        self._ring_words, self._ring_halves = memoryview(self._ring).cast("Q"), memoryview(self._ring).cast("H")
        self._free_tail = 0
        self._in_order = True  # whether the kernel has always told of buffers in the order in which it had them
        self._used, self._round = 0, b""
        self._offer(range(BUFFERS))

    def close(self) -> None:
        os.close(self._descriptor)

    # -- asking --------------------------------------------------------------------------------------------------------

    def receive(self, descriptor: int, token: int) -> None:
        """From now on, until it is cancelled or fails."""
        word = IORING_OP_RECV | IOSQE_BUFFER_SELECT << 8 | IORING_RECV_MULTISHOT << 16 | descriptor << 32
        self._ask(word, 0, 0, token)

    def poll(self, descriptor: int, token: int) -> None:
        """Tell once that it can be read."""
        self._ask(IORING_OP_POLL_ADD | descriptor << 32, 0, select.POLLIN << 32, token)

    def cancel(self, token: int) -> None:
        """What was asked for with this token; its own last completion tells when that is so."""
        self._ask(IORING_OP_ASYNC_CANCEL | IOSQE_CQE_SKIP_SUCCESS << 8, token, 0, CANCEL)

    def _ask(self, word: int, address: int, rest: int, token: int) -> None:
        if self._tail - self._submitted > self._sq_mask - BUFFERS:
            self.submit()
        self._next_slot = (self._next_slot + 1) % (SUBMISSIONS - BUFFERS)
        slot = BUFFERS + self._next_slot
        self._order[self._tail & self._sq_mask] = slot
        at, words = slot * 8, self._words
        words[at], words[at + 2], words[at + 3], words[at + 4] = word, address, rest, token
        self._tail += 1

    def submit(self) -> None:
        """All that was asked for, without waiting."""
        if self._tail != self._submitted:
            self._enter(0, 0, 0, 0)

    def wait(self, within_s: float) -> None:
        """Submit, and wait for a completion; below 0: for ever."""
        if within_s < 0:
            self._enter(1, IORING_ENTER_GETEVENTS, 0, 0)
            return
        self._moment[0] = whole = int(within_s)
        self._moment[1] = int((within_s - whole) * 1e9)
        self._enter(1 if within_s else 0, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, self._within_at, 24)

    def _enter(self, least: int, flags: int, argument: int, size: int) -> None:
        tail = self._tail
        self._counters[self._sq_tail_at] = tail & U32
        done: int = _syscall(ENTER, self._descriptor, tail - self._submitted, least, flags, argument, size)
        if done >= 0:
            self._submitted += done
        elif (code := ctypes.get_errno()) not in (errno.ETIME, errno.EINTR, errno.EAGAIN, errno.EBUSY):
            raise OSError(code, os.strerror(code))

    # -- passing on ----------------------------------------------------------------------------------------------------

    def pass_on(self, flows: MutableMapping[int, AnyFlow], now: float) -> list[Left]:
        """Send what has been received for flows, by token, to where they go; returns what else is complete, in order.

        `now` tells rounds apart.  Of a flow at most one send is under way, so that none can overtake another: what
        comes twice in a round, ends or fails is left to the caller, and the flow taken out of `flows`, so that all
        later of it is left too.  Sends go out with the next `wait` or `submit`.

        Where more is complete than the ring holds, sends that failed may be told of later: then all is left.
        """
        settled = self.settled = self._is_settled()
        round_, count = self._taken()
        active: Mapping[int, AnyFlow] = flows if settled else {}
        get, halves, order, tokens = active.get, self._halves, self._order, self._tokens
        tail, mask, used, buffer = self._tail, self._sq_mask, 0, 0
        left: list[Left] = []
        for token, size, flags in _completions(round_):
            flow = get(token)
            if flow is not None and flags & GOES_ON == GOES_ON and 0 < size < BUFFER_SIZE and flow.seen != now:
                flow.seen = now
                flow.moved += size
                buffer = flags >> 16
                at = buffer << 4
                halves[at + 1] = flow.goes_to
                halves[at + 6] = size
                tokens[buffer] = token
                order[tail & mask] = buffer
                tail += 1
                continue
            if flags & IORING_CQE_F_BUFFER:
                buffer = flags >> 16
                used += 1
            if token < CANCEL:
                left.append(self._left(token, size, flags))
                flows.pop(left[-1].token, None)
        used += tail - self._tail
        self._tail = tail
        self._head += count
        self._counters[self._cq_head_at] = self._head & U32
        if settled:
            self._give_back()
        self._used, self._round = self._used + used, self._round + round_
        if used and buffer != (self._free_tail + self._used - 1) & (BUFFERS - 1):
            self._in_order = False
        return left

    def _is_settled(self) -> bool:
        overflown = self._counters[self._sq_flags_at] & IORING_SQ_CQ_OVERFLOW
        return self._tail == self._submitted and not overflown

    def _taken(self) -> tuple[bytes, int]:
        """Completions, as they lie in memory, and their number.  All there are: the last may tell that a send failed
        whose buffer is given back after this round."""
        count = (self._counters[self._cq_tail_at] - self._head) & U32
        first = (self._head & self._cq_mask) * 16
        last = ((self._head + count) & self._cq_mask) * 16
        if first < last or not count:
            return bytes(self._entries[first:last]), count
        return bytes(self._entries[first:]) + bytes(self._entries[:last]), count

    def _left(self, token: int, size: int, flags: int) -> Left:
        if token >= SEND:
            buffer = token - SEND
            data = self._bytes(buffer, max(0, size), self._halves[buffer * 16 + 6])
            return Left(self._tokens[buffer], size, data, sent=True, more=True)
        data = self._bytes(flags >> 16, 0, size) if flags & IORING_CQE_F_BUFFER and size > 0 else b""
        return Left(token, size, data, sent=False, more=bool(flags & IORING_CQE_F_MORE))

    def _bytes(self, buffer: int, first: int, last: int) -> bytes:
        at = buffer * BUFFER_SIZE
        return self._memory[at + first : at + last]

    # -- buffers -------------------------------------------------------------------------------------------------------

    def _give_back(self) -> None:
        """Those of the round before.  Given back in the order in which they were taken, each is found again where it
        lies in the ring, and only their number is to be told."""
        if self._in_order:
            self._free_tail += self._used
            self._ring_halves[7] = self._free_tail & 0xFFFF
        else:
            self._offer([flags >> 16 for _, _, flags in _completions(self._round) if flags & IORING_CQE_F_BUFFER])
        self._used, self._round = 0, b""

    def _offer(self, buffers: "range | list[int]") -> None:
        """Put buffers into the ring: struct io_uring_buf, whose last half-word of the first is the ring's tail."""
        for buffer in buffers:
            at = (self._free_tail & (BUFFERS - 1)) * 2
            self._ring_words[at] = self._addresses[buffer]
            self._ring_words[at + 1] = BUFFER_SIZE | buffer << 32
            self._free_tail += 1
        self._ring_halves[7] = self._free_tail & 0xFFFF
