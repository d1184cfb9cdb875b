"""etcd's JSON gateway: requests from transactions, events from answers.  Pure.

The gateway renders etcd's protobuf messages as JSON: bytes in base64, 64-bit integers as text, zero fields left out.
Source: https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway and api_reference_v3.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from svcplane.base.errors import StoreError
from svcplane.store.contract import Delete, KeyValue, Put, Revision, Transaction

Message = dict[str, Any]
#: etcd's way to say "every key" in both ends of a range.
EVERY_KEY = b"\0"


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def number(message: Message, field: str) -> int:
    """A 64-bit field; 0 where it is left out."""
    return int(message.get(field, 0))


def revision_of(message: Message) -> Revision:
    """The store's revision that an answer's header tells."""
    return Revision(number(message.get("header", {}), "revision"))


def range_end(prefix: bytes) -> bytes:
    """The first key after all keys with the prefix."""
    for index in reversed(range(len(prefix))):
        if prefix[index] < 0xFF:
            return prefix[:index] + bytes([prefix[index] + 1])
    return EVERY_KEY


@dataclass(frozen=True, slots=True)
class Keyspace:
    """Our keys that begin with `ours` are etcd's that begin with `theirs`.  Others have no place."""

    ours: str
    theirs: str

    def encode(self, key: str) -> str:
        if not key.startswith(self.ours):
            raise StoreError(f"key {key} is outside {self.ours}")
        return text((self.theirs + key[len(self.ours) :]).encode())

    def decode(self, raw: str) -> str | None:
        """None for a key of somebody else."""
        key = base64.b64decode(raw)
        start = self.theirs.encode()
        return self.ours + key[len(start) :].decode() if key.startswith(start) else None

    def item(self, found: Message) -> KeyValue | None:
        """A key with its value; None for one of somebody else."""
        key = self.decode(found["key"])
        if key is None:
            return None
        value = base64.b64decode(found.get("value", ""))
        return KeyValue(key, value, Revision(number(found, "mod_revision")), Revision(number(found, "create_revision")))


def transaction(asked: Transaction, keys: Keyspace) -> Message:
    """The request of a commit: where a condition fails, what is there is read in the same step."""
    compare = [
        {"key": keys.encode(c.key), "target": "MOD", "result": "EQUAL", "mod_revision": str(c.revision)}
        for c in asked.preconditions
    ]
    success: list[Message] = []
    for operation in asked.operations:
        match operation:
            case Put(key, value):
                success.append({"request_put": {"key": keys.encode(key), "value": text(value)}})
            case Delete(key):
                success.append({"request_delete_range": {"key": keys.encode(key)}})
    failure = [{"request_range": {"key": keys.encode(c.key)}} for c in asked.preconditions]
    return {"compare": compare, "success": success, "failure": failure}


def failed_precondition(asked: Transaction, answer: Message, keys: Keyspace) -> tuple[str, KeyValue | None]:
    """Which condition did not hold in a refused transaction, and what is there."""
    found: KeyValue | None = None
    for condition, response in zip(asked.preconditions, answer.get("responses", []), strict=True):
        rows = response.get("response_range", {}).get("kvs", [])
        found = keys.item(rows[0]) if rows else None
        if (found.revision if found else 0) != condition.revision:
            return condition.key, found
    raise StoreError("etcd refused a transaction whose conditions hold")


def watch_request(start: Revision) -> Message:
    """Watch every key from `start` on: whatever raises etcd's revision is seen, also what is not ours."""
    every = text(EVERY_KEY)
    return {"create_request": {"key": every, "range_end": every, "start_revision": str(start), "fragment": True}}


@dataclass(frozen=True, slots=True)
class Change:
    """A put or (value None) a delete, of one revision."""

    key: str
    value: bytes | None
    created: Revision


class WatchReader:
    """Groups a watch's answers by revision.  Large answers come in fragments, which may split a revision."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys
        self._pending: list[Message] = []

    def feed(self, result: Message) -> Sequence[tuple[Revision, list[Change]]]:
        """Whole revisions in order; one that only touched others' keys has no changes."""
        self._pending += result.get("events", [])
        if result.get("fragment"):
            return ()
        groups: dict[Revision, list[Change]] = {}
        for event in self._pending:
            found = event["kv"]
            changes = groups.setdefault(Revision(number(found, "mod_revision")), [])
            key = self._keys.decode(found["key"])
            if key is None:
                continue
            deleted = event.get("type") == "DELETE"
            value = None if deleted else base64.b64decode(found.get("value", ""))
            changes.append(Change(key, value, Revision(number(found, "create_revision"))))
        self._pending = []
        return list(groups.items())
