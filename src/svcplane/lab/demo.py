"""The main job, shown and checked with real packets, once for each proxy mode.

A Service is made before its Pods; Pods come, one is taken out and comes back; a client sticks to a Pod.  Every
claim is an expectation: it is printed with what was seen, and `run` tells whether all held.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from svcplane.api.resources import ENDPOINTS, PODS, SERVICES
from svcplane.api.status import StatusError
from svcplane.base.errors import SvcplaneError, TransportError
from svcplane.client.api import ApiClient
from svcplane.lab.client import ask, ask_many
from svcplane.lab.cluster import Cluster
from svcplane.lab.manifests import manifests
from svcplane.lab.topology import CLIENT_IPS

NAMESPACE, PORT, POD_PORT = "default", 80, 8080
CONNECTIONS = 60
WAIT_S, STICKY_TRIES = 60.0, 2  # that 8 clients all happen on the same 3 Pods again: 1 in 6561 a try
PODS_OF_DEMO = ("hello-1", "hello-2", "hello-3")
Tree = dict[str, Any]


@dataclass(slots=True)
class Demo:
    """One demonstration on a running lab.  The caller's thread is in the lab's client namespace."""

    cluster: Cluster
    api: ApiClient
    console: Console
    objects: Sequence[Tree]
    began: float = field(default_factory=time.monotonic)
    failures: list[str] = field(default_factory=list)
    checks: int = 0
    cluster_ips: dict[str, str] = field(default_factory=dict)

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self.began:5.1f}s[/dim]  {text}")

    def expect(self, claim: str, holds: bool, seen: object = "") -> None:
        self.checks += 1
        if not holds:
            self.failures.append(f"{self.cluster.mode}: {claim} (seen: {seen})")
        self.say(f"[green]ok[/green]    {claim}" if holds else f"[red]FAIL[/red]  {claim}: {seen}")

    async def until(self, what: str, condition: Callable[[], Awaitable[bool]]) -> bool:
        """Wait for a condition; one that does not come is a failed expectation."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not await self._quietly(condition):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self.expect(what, False, f"not within {WAIT_S:g} s")
            return False
        return True

    @staticmethod
    async def _quietly(condition: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await condition()
        except (TransportError, StatusError):
            return False

    # -- steps -----------------------------------------------------------------------------------------------

    async def apply(self, kind: str) -> None:
        for tree in self.objects:
            if tree["kind"] != kind:
                continue
            resource = {"Service": SERVICES, "Pod": PODS}[kind]
            try:
                await self.api.create(resource, NAMESPACE, tree)
            except StatusError as error:
                if error.code != 409:
                    raise

    async def cluster_ip(self, name: str) -> str:
        ip: str = (await self.api.get(SERVICES, NAMESPACE, name))["spec"]["clusterIP"]
        return ip

    async def ready_pods(self, name: str) -> set[str]:
        """The Pods in the Service's Endpoints."""
        subsets = (await self.api.get(ENDPOINTS, NAMESPACE, name)).get("subsets") or []
        return {address["targetRef"]["name"] for subset in subsets for address in subset.get("addresses") or []}

    async def begin(self) -> None:
        """Service first, Pods later."""
        self.say(
            f"a lab of {self.cluster.lab.node_count} nodes and a client, proxy mode [bold]{self.cluster.mode}[/bold]"
        )
        await self.apply("Service")
        for name in ("hello", "sticky"):
            self.cluster_ips[name] = await self.cluster_ip(name)
        self.say(
            f"Services applied, no Pods yet: hello is {self.cluster_ips['hello']}, sticky {self.cluster_ips['sticky']}"
        )
        await self.until("a connection is refused while there are no Pods", self.refused)
        self.expect("no Pods yet: a connection is refused at once", await self.refused())
        await self.apply("Pod")
        self.say(f"Pods applied: {', '.join(PODS_OF_DEMO)}")

    async def refused(self) -> bool:
        answer = await ask(self.client, self.cluster_ips["hello"], PORT, 1.0)
        return answer in ("refused", "closed")  # a relay accepts first and closes then

    @property
    def client(self) -> str:
        return self.cluster.namespace("client")

    async def round(self) -> None:
        """All that is shown in one mode."""
        ip = self.cluster_ips["hello"]
        everyone = set(PODS_OF_DEMO)

        async def all_in() -> bool:
            return await self.ready_pods("hello") == everyone

        if await self.until("Endpoints hold all Pods once they are ready", all_in):
            self.expect("Endpoints hold all Pods once they are ready", True)
        await self.until("the ClusterIP reaches all Pods", lambda: self.reaches(ip, everyone))
        seen = await ask_many(self.client, ip, PORT, CONNECTIONS)
        await self.show(seen)
        self.expect(f"{CONNECTIONS} connections, each answered, by all Pods", set(seen) == everyone, dict(seen))
        await self.unready(ip, everyone)
        await self.sticky()
        for name, first in self.cluster_ips.items():
            self.expect(f"the ClusterIP of {name} is still {first}", await self.cluster_ip(name) == first)

    async def reaches(self, ip: str, wanted: set[str]) -> bool:
        return set(await ask_many(self.client, ip, PORT, 20)) == wanted

    async def show(self, seen: Counter[str]) -> None:
        pods = {pod["metadata"]["name"]: pod for pod in (await self.api.list(PODS, NAMESPACE))["items"]}
        table = Table(title=f"Who answered {sum(seen.values())} connections to hello ({self.cluster.mode})")
        for column in ("Pod", "node", "address", "connections"):
            table.add_column(column, justify="right" if column == "connections" else "left")
        for name in sorted({*pods, *seen}):
            pod = pods.get(name, {})
            status = pod.get("status", {})
            table.add_row(
                name, pod.get("spec", {}).get("nodeName", ""), status.get("podIP", ""), str(seen.get(name, 0))
            )
        self.console.print(table)

    async def unready(self, ip: str, everyone: set[str]) -> None:
        """A Pod whose readiness probe fails gets no new connections, until it succeeds again."""
        victim = PODS_OF_DEMO[1]
        others = everyone - {victim}
        pod_ip = (await self.api.get(PODS, NAMESPACE, victim))["status"]["podIP"]
        await self.tell(pod_ip, "/fail")

        async def out() -> bool:
            return await self.ready_pods("hello") == others

        await self.until(f"{victim} leaves the Endpoints when its readiness probe fails", out)
        await self.until(f"connections keep away from {victim}", lambda: self.reaches(ip, others))
        seen = await ask_many(self.client, ip, PORT, CONNECTIONS)
        self.expect(
            f"{victim} is not ready: {CONNECTIONS} new connections, none to it", set(seen) == others, dict(seen)
        )
        await self.tell(pod_ip, "/recover")
        if await self.until(f"{victim} is ready and gets connections again", lambda: self.reaches(ip, everyone)):
            self.expect(f"{victim} is ready and gets connections again", True)

    async def tell(self, pod_ip: str, path: str) -> None:
        reader, writer = await asyncio.open_connection(pod_ip, POD_PORT)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: demo\r\n\r\n".encode())
        await reader.read()
        writer.close()

    async def sticky(self) -> None:
        """Each client on one Pod, until it was silent for the timeout."""
        ip = self.cluster_ips["sticky"]
        await self.until("sticky answers", lambda: self.sticky_answers(ip))
        before = await self.led(ip)
        again = [await self.led(ip) for _ in range(4)]
        count = len(CLIENT_IPS)
        moved = [client for each in again for client in CLIENT_IPS if each[client] != before[client]]
        self.expect(f"sticky: {count} clients connect 5 times, each to one Pod of its own", not moved, (before, again))
        if self.cluster.mode == "ipvs":
            self.say("      ipvs forgets a client only after its closed connections, in minutes: not waited for")
            return
        service = await self.api.get(SERVICES, NAMESPACE, "sticky")
        timeout = float(service["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"])
        for _ in range(STICKY_TRIES):
            await asyncio.sleep(timeout + 0.7)  # the silence itself is what is shown
            later = await self.led(ip)
            moved = [client for client in CLIENT_IPS if later[client] != before[client]]
            if moved:
                break
        self.expect(
            f"sticky: after {timeout:g} s of silence a Pod is chosen anew ({len(moved)} of {count} clients changed)",
            bool(moved) and set(later.values()) <= set(PODS_OF_DEMO),
            later,
        )

    async def led(self, ip: str) -> dict[str, str]:
        """Who answers each client."""
        answers = await asyncio.gather(*(ask(self.client, ip, PORT, source=client) for client in CLIENT_IPS))
        return dict(zip(CLIENT_IPS, answers, strict=True))

    async def sticky_answers(self, ip: str) -> bool:
        return await ask(self.client, ip, PORT, 1.0) in PODS_OF_DEMO

    def summary(self, modes: Sequence[str]) -> bool:
        took = time.monotonic() - self.began
        if self.failures:
            for failure in self.failures:
                self.console.print(f"[red]FAIL[/red]  {failure}")
        word = "[red]failed[/red]" if self.failures else "[green]passed[/green]"
        good = self.checks - len(self.failures)
        self.console.print(f"{word}: {good} of {self.checks} expectations held in {', '.join(modes)}; {took:.1f} s")
        return not self.failures


async def run(cluster: Cluster, modes: Sequence[str], directory: Path, console: Console) -> bool:
    """The demonstration on a lab that is up; True if every expectation held."""
    api, transport = cluster.client()
    demo = Demo(cluster, api, console, manifests(directory))
    try:
        await demo.begin()
        for number, mode in enumerate(modes):
            if number:
                demo.say(f"switching the proxies to [bold]{mode}[/bold]")
                await cluster.switch_mode(mode)
            await demo.round()
            dead = cluster.dead()
            demo.expect("every process of the lab still runs", not dead, dead)
    except SvcplaneError as error:
        demo.expect("the API server answers", False, error)
    finally:
        await transport.close()
    return demo.summary(modes)
