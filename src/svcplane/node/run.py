"""The node agent put together: registration, Pods of this node, workers, HTTP port.  The library entry."""

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from svcplane.api.core import Pod, Service
from svcplane.api.resources import PODS, SERVICES
from svcplane.base.clock import SYSTEM_CLOCK
from svcplane.base.errors import ConfigError, reason_of
from svcplane.base.tasks import cancel_and_wait
from svcplane.client.api import ApiClient
from svcplane.client.informer import Informer
from svcplane.client.transport import Transport
from svcplane.kernel.links.objects import NetworkSpace
from svcplane.kernel.links.run import KernelLinks, ensure, preflight
from svcplane.node.addresses import AddressBook
from svcplane.node.agent import Agent
from svcplane.node.api import Recorder
from svcplane.node.httpd import AgentHttp, AgentTls, ProxyPage, serve
from svcplane.node.network import node_sysctls
from svcplane.node.registration import NodeFacts, Registration
from svcplane.node.surroundings import Surroundings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """How to run a node.

    `stop_pods`: end the Pods' processes with the agent; otherwise they go on and are adopted later.
    `proxy`: asks the proxy of this namespace for one of `proxy_pages`, which the agent then serves, too.
    `address`: where logs and health are served (empty: the first of `ips`); `tls` None: nothing is served.
    """

    name: str
    ips: tuple[str, ...]
    pod_cidrs: tuple[str, ...]
    state: Path
    namespace_prefix: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    address: str = ""
    port: int = 10250
    tls: AgentTls | None = None
    stop_pods: bool = False
    grace_s: float = 5.0
    proxy: ProxyPage | None = None
    proxy_pages: tuple[str, ...] = ()


@contextlib.contextmanager
def _exclusive(state: Path) -> Iterator[None]:
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = open(state / "lock", "w")  # noqa: SIM115 - closed below
    except OSError as error:
        why = "is no directory" if isinstance(error, FileExistsError | NotADirectoryError) else reason_of(error)
        raise ConfigError(f"the state directory {state}: {why}") from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"the state directory {state} is used by another node agent") from error
        yield


@contextlib.asynccontextmanager
async def running_node(transport: Transport, options: NodeOptions) -> AsyncIterator[Agent]:
    """A running node; leaving the block stops it.  Raises ConfigError, EnvironmentProblem."""
    preflight()
    with _exclusive(options.state):
        links = KernelLinks()
        sysctls = node_sysctls(options.pod_cidrs)
        before = await asyncio.to_thread(links.observe, "", sysctls)
        await asyncio.to_thread(ensure, links, [NetworkSpace("", sysctls=sysctls)])
        try:
            async with _with_agent(transport, options, links) as agent:
                yield agent
        finally:
            if options.stop_pods and before is not None:
                changed = {key: value for key, value in before.sysctls.items() if value != sysctls.get(key)}
                await asyncio.to_thread(ensure, links, [NetworkSpace("", sysctls=changed)])


@contextlib.asynccontextmanager
async def _with_agent(transport: Transport, options: NodeOptions, links: KernelLinks) -> AsyncIterator[Agent]:
    client = ApiClient(transport, "svcplane-node")
    clock = SYSTEM_CLOCK
    services: Informer[Service] = Informer(client, SERVICES, Service)
    around = Surroundings(
        node_name=options.name,
        host_ips=options.ips,
        pod_cidrs=options.pod_cidrs,
        state=options.state.resolve(),
        namespace_prefix=options.namespace_prefix or namespace_prefix(options.name, options.state),
        python=(sys.executable,),
        api=client,
        links=links,
        addresses=AddressBook(options.pod_cidrs),
        recorder=Recorder(client, clock, "svcplane-node", options.name),
        clock=clock,
        services=lambda: list(services.items.values()),
    )
    agent = Agent(around)
    await agent.adopt()
    runner, port = None, 0
    if options.tls is not None:
        app = AgentHttp(agent, around, proxy=options.proxy, pages=options.proxy_pages).application()
        runner, port = await serve(app, options.address or options.ips[0], options.port, options.tls)
    facts = NodeFacts(options.name, options.ips, options.pod_cidrs, options.labels, port)
    registration = Registration(facts, client, clock)
    heart: asyncio.Task[None] | None = None
    informer: Informer[Pod] = Informer(client, PODS, Pod, fields=f"spec.nodeName={options.name}")
    follow: asyncio.Task[None] | None = None
    try:
        await registration.register()
        heart = asyncio.create_task(registration.run(), name="heartbeat")
        services.start()
        follow = asyncio.create_task(_follow(informer, agent, services.synced), name="pods of this node")
        log.info("node is up: node=%s pod_cidrs=%s port=%d", options.name, ",".join(options.pod_cidrs), port)
        yield agent
    finally:
        await informer.close()
        await services.close()
        await cancel_and_wait(heart, follow)
        if options.stop_pods:
            await registration.goodbye("svcplane node was stopped")
        await agent.close(stop_pods=options.stop_pods, grace_s=options.grace_s)
        if runner is not None:
            await runner.cleanup()


async def _follow(informer: Informer[Pod], agent: Agent, services: asyncio.Event) -> None:
    """Hand Pods to the agent, once Services are known: the first list as a whole, then each change."""
    listed = False

    def changed(old: Pod | None, new: Pod | None) -> None:
        if not listed:
            return
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            agent.gone(old)
        if new is not None:
            agent.changed(new)

    informer.on_change(changed)
    informer.start()
    await services.wait()
    await informer.synced.wait()
    listed = True
    await agent.listed(list(informer.items.values()))
    await asyncio.Event().wait()


def namespace_prefix(name: str, state: Path) -> str:
    """How the namespaces of a node's Pods begin: another for each state directory, so that agents share a host."""
    digest = hashlib.sha256(f"{name} {state.resolve()}".encode()).hexdigest()[:6]
    return f"svc-{digest}-"


def default_name() -> str:
    """The host's name, as nodes are named."""
    return os.uname().nodename.lower()
