"""What all Pods of a node share."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from svcplane.api.core import Service
from svcplane.base.clock import Clock
from svcplane.kernel.links.objects import Links
from svcplane.node.addresses import AddressBook
from svcplane.node.api import Api, Recorder


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`python`: the command that runs the built-in images; `services`: all there are, for containers' environments."""

    node_name: str
    host_ips: tuple[str, ...]
    pod_cidrs: tuple[str, ...]
    state: Path
    namespace_prefix: str
    python: tuple[str, ...]
    api: Api
    links: Links
    addresses: AddressBook
    recorder: Recorder
    clock: Clock
    services: Callable[[], Iterable[Service]] = tuple
