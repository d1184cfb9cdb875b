"""What `svcplane wait --for` waits for: a condition of an object, that it is there, or that it is gone."""

import asyncio
from dataclasses import dataclass

from svcplane.api.resources import Resource
from svcplane.api.status import StatusError
from svcplane.base.errors import ConfigError
from svcplane.cli.objects import Tree
from svcplane.client.api import ApiClient

AGAIN_S = 0.2


@dataclass(frozen=True, slots=True)
class Condition:
    """`what`: condition, create or delete.  Of a condition its type, in any case, and the status wanted."""

    what: str
    type: str = ""
    status: str = "true"

    def __str__(self) -> str:
        return f"condition {self.type}={self.status}" if self.what == "condition" else self.what

    @property
    def met(self) -> str:
        return {"condition": "condition met", "create": "is there", "delete": "is gone"}[self.what]

    def holds(self, tree: Tree | None) -> bool:
        """Of an object, None where there is none."""
        if self.what != "condition":
            return (tree is None) == (self.what == "delete")
        found = ((tree or {}).get("status") or {}).get("conditions") or []
        return any((c["type"].lower(), c["status"].lower()) == (self.type.lower(), self.status.lower()) for c in found)


def parse(text: str) -> Condition:
    """`condition=NAME`, `condition=NAME=VALUE`, `create`, `delete`.  Raises ConfigError."""
    if text in ("create", "delete"):
        return Condition(text)
    word, _, rest = text.partition("=")
    name, _, status = rest.partition("=")
    if word != "condition" or not name:
        raise ConfigError(f"--for {text}: must be condition=NAME[=VALUE], create or delete")
    return Condition("condition", name, status or "true")


async def until(
    client: ApiClient, resource: Resource, namespace: str, name: str, condition: Condition, limit_s: float
) -> bool:
    """Whether it held in time; with 0 it is looked at once.  Raises StatusError where a `condition` has no object."""
    end = asyncio.get_running_loop().time() + limit_s
    while True:
        try:
            tree: Tree | None = await client.get(resource, namespace, name)
        except StatusError as error:
            if error.code != 404 or condition.what == "condition":
                raise
            tree = None
        if condition.holds(tree):
            return True
        if asyncio.get_running_loop().time() >= end:
            return False
        await asyncio.sleep(AGAIN_S)
