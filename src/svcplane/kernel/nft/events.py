"""Which table each generation of nf_tables changed, as the kernel tells its listeners.

The generation is one number for all tables: it tells that somebody changed something.  The notifications that come
with each commit tell what, so that a change of another table need not make anybody read his own again.
Source: net/netfilter/nf_tables_api.c nf_tables_commit, nf_tables_gen_notify.
"""

import errno
import socket
import time
from collections.abc import Callable

from svcplane.kernel.netlink import codec as netlink
from svcplane.kernel.nft import codec
from svcplane.kernel.nft.objects import TableName

NETLINK_NETFILTER = 12
_GROUP = 7  # NFNLGRP_NFTABLES
_NEWGEN = 15
_GEN_ID, _TABLE = 1, 1  # NFTA_GEN_ID; the table's name is attribute 1 of every object
_BUFFER = 4 << 20
_PATIENCE_S = 0.05


class TableEvents:
    """Listens from its making on.  An event that was lost makes the past unknown, never wrong."""

    def __init__(self, generation: Callable[[], int]) -> None:
        """`generation` asks for the present one, which is done once nothing can be missed.  Raises OSError."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.bind((0, 1 << (_GROUP - 1)))
        self._known_from = self._known_to = generation()
        self._changed: dict[TableName, int] = {}  # the last generation that changed a table
        self._pending: set[TableName] = set()  # changed by the transaction whose end is still to come

    def unchanged(self, table: TableName, since: int, until: int) -> bool:
        """Whether it is known that no generation after `since`, up to `until`, changed the table."""
        end = time.monotonic() + _PATIENCE_S
        self._read(block=False)
        while self._known_to < until and time.monotonic() < end:  # counted before it is told of
            self._read(block=True)
        if self._known_from < 0 or since < self._known_from or self._known_to < until:
            return False
        return self._changed.get(table, 0) <= since

    def _read(self, *, block: bool) -> None:
        self._socket.settimeout(_PATIENCE_S if block else 0.0)
        while True:
            try:
                data = self._socket.recv(1 << 18)
            except (BlockingIOError, TimeoutError):
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._forget()
                continue
            self._take(data)
            self._socket.settimeout(0.0)

    def _take(self, data: bytes) -> None:
        for kind, _, _, body in netlink.messages(data):
            if kind >> 8 != codec.SUBSYS or len(body) < 4:
                continue
            attributes = codec.attributes(body, 4)
            if kind & 0xFF == _NEWGEN:
                self._known_to = codec.number(attributes[_GEN_ID])
                if self._known_from < 0:
                    self._known_from = self._known_to
                for table in self._pending:
                    self._changed[table] = self._known_to
                self._pending.clear()
            elif body[0] in codec.FAMILY and _TABLE in attributes:
                self._pending.add(TableName(codec.FAMILY[body[0]], codec.string(attributes[_TABLE])))

    def _forget(self) -> None:
        """Something was lost: the past is known again from the next generation on."""
        self._known_from = -1
        self._pending.clear()

    def close(self) -> None:
        self._socket.close()
