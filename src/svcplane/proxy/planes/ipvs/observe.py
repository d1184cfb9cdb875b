"""What is there of ipvs mode in the kernel, and the ground it stands on: device, sets, rules, parameters."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from svcplane.base.errors import EnvironmentProblem
from svcplane.kernel.dummy.objects import Dummy
from svcplane.kernel.ipset.objects import Ipset
from svcplane.kernel.iptables.text import Tables
from svcplane.kernel.ipvs import objects as o
from svcplane.kernel.marked.objects import Intake
from svcplane.proxy.model import NodeConfig
from svcplane.proxy.plane import Operation
from svcplane.proxy.planes.ipvs import names as n
from svcplane.proxy.planes.ipvs import rules
from svcplane.proxy.planes.ipvs.plan import Live, ours
from svcplane.proxy.planes.ipvs.policy import Options
from svcplane.proxy.planes.ipvs.system import CONNTRACK, parameters


class Iptables(Protocol):
    """The tools of one family; `choose` settles which variant."""

    async def choose(self) -> str: ...

    async def save(self) -> Tables: ...

    async def restore(self, text: str, *, mark: bool = False) -> None: ...

    async def tidy(self) -> None: ...


class Sysctls(Protocol):
    def get(self, name: str) -> str | None: ...

    def set(self, name: str, value: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Kernel:
    """Everything the plane programs, of one family and network namespace."""

    ipvs: o.Ipvs
    ipset: Ipset
    device: Dummy
    iptables: Iptables
    intake: Intake
    sysctls: Sysctls


@dataclass(slots=True)
class Observed:
    """`servers`: everybody's of this family; `live`: what is ours.  `absent` and `wrong`: sets by kind."""

    device: bool
    intake: bool
    absent: tuple[n.Kind, ...]
    wrong: tuple[n.Kind, ...]
    tables: Tables
    servers: Mapping[o.ServerKey, o.Server]
    live: Live


async def observe(
    kernel: Kernel, config: NodeConfig, known: Live | None, claimed: Collection[str] = frozenset()
) -> Observed:
    """Read all of it.  `known`: what the plane remembers, if anything; `claimed`: addresses that are Services'."""
    family = config.family
    live, absent, wrong = Live(), [], []
    addresses = await kernel.device.read()
    live.addresses = set(addresses or ())
    found_sets = await kernel.ipset.read(n.set_name(kind, family) for kind in n.Kind)
    for kind in n.Kind:
        wanted = n.set_of(kind, family)
        found, entries = found_sets.get(wanted.name, (None, frozenset()))
        if found is None:
            absent.append(kind)
        elif found != wanted:
            wrong.append(kind)
        else:
            live.entries[kind] = set(entries)
    servers = {key: server for key, server in (await kernel.ipvs.servers()).items() if key.family is family}
    for key in ours(servers, {*live.addresses, *claimed}, live.entries, known):
        weights = {target: found.weight for target, found in (await kernel.ipvs.destinations(key)).items()}
        live.servers[key] = (servers[key], weights)
    await kernel.iptables.choose()
    tables = await kernel.iptables.save()
    return Observed(
        addresses is not None, await kernel.intake.read(), tuple(absent), tuple(wrong), tables, servers, live
    )


def _parameters(kernel: Kernel, config: NodeConfig, options: Options) -> dict[str, str]:
    """Those that are not as they should be."""
    wanted = parameters(options, config.family, os.uname().release)
    if kernel.sysctls.get(CONNTRACK) is None:
        raise EnvironmentProblem("this kernel's IPVS does not track connections (CONFIG_IP_VS_NFCT)")
    found = {name: kernel.sysctls.get(name) for name in wanted}
    return {name: value for name, value in wanted.items() if found[name] not in (None, value)}


def ground(kernel: Kernel, config: NodeConfig, options: Options, observed: Observed) -> list[Operation]:
    """What `lay` would do."""
    found = [] if observed.device else [Operation("add", f"device {n.DEVICE}", "addresses of Services go there")]
    if not observed.intake:
        found.append(
            Operation("add", "rule and route for marked packets", "services at addresses of other hosts need them")
        )
    found += [Operation("add", f"set {n.set_name(kind, config.family)}", "rules need it") for kind in observed.absent]
    for kind in observed.wrong:
        found.append(Operation("replace", f"set {n.set_name(kind, config.family)}", "it is not of the right kind"))
    for change in rules.diff(rules.tables(config), observed.tables):
        found.append(Operation(change.verb, change.object, "the rules of this mode"))
    for name, value in _parameters(kernel, config, options).items():
        found.append(Operation("replace", f"sysctl {name.replace('/', '.')}={value}", "this mode needs it"))
    return found


async def lay(kernel: Kernel, config: NodeConfig, options: Options, observed: Observed) -> None:
    """Make device, sets, rules and parameters as they should be.  Sets of the wrong kind begin empty."""
    await kernel.device.create()
    if not observed.intake:
        await kernel.intake.create()
    tables = observed.tables
    if observed.wrong:
        for text in rules.removal(tables):
            await kernel.iptables.restore(text)
        tables = await kernel.iptables.save()
        for kind in observed.wrong:
            await kernel.ipset.destroy(n.set_name(kind, config.family))
    for kind in (*observed.wrong, *observed.absent):
        await kernel.ipset.create(n.set_of(kind, config.family))
    for change in rules.diff(rules.tables(config), tables):
        await kernel.iptables.restore(change.text, mark=True)
    for name, value in _parameters(kernel, config, options).items():
        kernel.sysctls.set(name, value)
    if options.timeouts != o.Timeouts():
        await kernel.ipvs.set_timeouts(options.timeouts)
