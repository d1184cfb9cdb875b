"""A prepared situation for a lab, as a directory: manifests, how to bring it about, and what then goes wrong.  Pure.

`scenario.yaml` is declarative; a step has exactly one key:

    nodes: 2                # of a lab that is made for it; default 2
    mode: nftables
    steps:
      - apply: manifests.yaml                                   # a file of the directory
      - running: [web-1]                                        # until these Pods run and have addresses
      - connect: {from: client, to: "svc/web:80", sees: answer} # until a connection ends so
      - programmed: web                                         # until every proxy is done with this Service
      - run: {member: node1, command: [sysctl, -w, net.ipv4.ip_forward=0]}
      - delete: pod/web-1
      - stopProxy: node1
      - startProxy: {member: node1, flags: [--cluster-cidr=10.0.0.0/8]}
    symptom: {from: client, to: "svc/web:80", sees: timeout}

`from` and `member` are members of the lab (client, node1, pod/NAME); `to` is svc/NAME:PORT, NODE:PORT or IP:PORT, with
/udp where it is not TCP; `sees` is `answer`, `refused`, `timeout`, or the Pod that answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from svcplane.api.resources import BY_KIND, Resource
from svcplane.base.errors import ConfigError
from svcplane.lab.manifests import documents
from svcplane.lab.topology import MAX_NODES
from svcplane.proxy.model import Protocol

FILE = "scenario.yaml"
Tree = dict[str, Any]


class Connect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from"}):
    """A connection out of a member.  `port`: the source port, where it matters."""

    source: str
    to: str
    sees: str
    port: int = 0

    def __str__(self) -> str:
        return f"{self.source} to {self.to}"


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    member: str
    command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class StartProxy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    member: str
    flags: tuple[str, ...] = ()


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """One of these, and no more."""

    apply: str | None = None
    running: tuple[str, ...] | None = None
    connect: Connect | None = None
    programmed: str | None = None
    run: Run | None = None
    delete: str | None = None
    stop_proxy: str | None = None
    start_proxy: StartProxy | None = None

    @property
    def given(self) -> tuple[str, ...]:
        return tuple(msgspec.to_builtins(self))


class _Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    symptom: Connect
    steps: tuple[Step, ...]
    nodes: Annotated[int, msgspec.Meta(ge=1, le=MAX_NODES)] = 2
    mode: Literal["nftables", "iptables", "ipvs", "userspace"] = "nftables"


@dataclass(frozen=True, slots=True)
class Scenario:
    """`objects`: what the files named by `apply` hold."""

    directory: Path
    nodes: int
    mode: str
    steps: tuple[Step, ...]
    symptom: Connect
    objects: Mapping[str, list[Tree]]

    @property
    def name(self) -> str:
        return self.directory.resolve().name


def read(directory: Path) -> Scenario:
    """Raises ConfigError naming the file and what is wrong in it."""
    file = directory / FILE
    try:
        written = msgspec.convert(yaml.safe_load(file.read_text()), _Written)
    except OSError as error:
        raise ConfigError(f"--scenario {directory}: {FILE}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is no text") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{file}: {' '.join(str(error).split())}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file}: {error}") from error
    try:
        place(written.symptom.to)
    except ConfigError as error:
        raise ConfigError(f"{file}: symptom: {error}") from error
    objects = {}
    for number, step in enumerate(written.steps, 1):
        if len(step.given) != 1:
            has = f"it has {' and '.join(step.given)}" if step.given else "it has none"
            raise ConfigError(f"{file}: step {number} must have exactly one key: {has}")
        try:
            _check(step)
        except ConfigError as error:
            raise ConfigError(f"{file}: step {number}: {error}") from error
        if step.apply is not None:
            objects[step.apply] = list(documents(directory / step.apply))
    return Scenario(directory, written.nodes, written.mode, written.steps, written.symptom, objects)


def _check(step: Step) -> None:
    """Raises ConfigError for words that no lab could make sense of."""
    if step.connect is not None:
        place(step.connect.to)
    if step.delete is not None:
        kind, _, name = step.delete.partition("/")
        if not name:
            raise ConfigError(f"delete {step.delete}: must be KIND/NAME")
        resource_named(kind)


def place(text: str) -> tuple[str, int, Protocol]:
    """Host, port and protocol of svc/NAME:PORT, MEMBER:PORT or IP:PORT, with /udp.  Raises ConfigError."""
    where, slash, protocol = text.rpartition("/") if text.lower().endswith(("/tcp", "/udp")) else (text, "", "TCP")
    host, _, number = where.rpartition(":")
    if not host or not number.isdigit() or not 0 < int(number) < 65536:
        raise ConfigError(f"{text}: must be svc/NAME:PORT, a lab's member:PORT or IP:PORT, with /udp where it is UDP")
    return host, int(number), Protocol(protocol.upper() if slash else "TCP")


def resource_named(kind: str) -> Resource:
    """By any of its names.  Raises ConfigError."""
    for resource in BY_KIND.values():
        if kind.lower() in (resource.singular, resource.plural, *resource.short_names):
            return resource
    raise ConfigError(f"{kind}: there is no such kind of object")
