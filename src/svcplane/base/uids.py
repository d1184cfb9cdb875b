"""Random UUIDs, many from one question to the system: asking for 16 bytes costs as much as for thousands."""

import os
import uuid

_AT_ONCE = 256


class UidSource:
    """Version 4 UUIDs from the system's randomness."""

    def __init__(self) -> None:
        self._bytes, self._at = b"", 0

    def next(self) -> str:
        if self._at >= len(self._bytes):
            self._bytes, self._at = os.urandom(16 * _AT_ONCE), 0
        self._at += 16
        return str(uuid.UUID(bytes=self._bytes[self._at - 16 : self._at], version=4))


new_uid = UidSource().next
