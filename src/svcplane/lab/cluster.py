"""A lab's namespaces, processes and state directory.

State: DIR/NAME/lab.json (how it was made, and whose it is until it is kept), DIR/NAME/pids (`NAME PID STARTTIME`
lines), logs, the API server's data.  `down` needs nothing but the name: it ends every process in the lab's namespaces
and removes all of them.
"""

import asyncio
import contextlib
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from svcplane.api.resources import NODES
from svcplane.base.errors import ConfigError, EnvironmentProblem
from svcplane.base.net import Family
from svcplane.base.tasks import to_the_end
from svcplane.client.api import ApiClient
from svcplane.client.http import HttpTransport
from svcplane.client.kubeconfig import load
from svcplane.kernel.links.objects import DeleteNamespace
from svcplane.kernel.links.run import KernelLinks, command_in, ensure, open_socket, pids_in, preflight
from svcplane.lab.topology import API_PORT, CLIENT_IP, CLUSTER_CIDR, CONTROL_IP, SERVICE_CIDR, Lab
from svcplane.node.processes import ProcessId
from svcplane.server.certificates import Authority

#: Long enough for a slow machine that others use too, in whose user-mode Linux a process takes seconds to begin.
START_TIMEOUT_S, STOP_TIMEOUT_S = 120.0, 10.0
STATE = Path("/run/svcplane/lab")
HEALTH_PORT = 10256


def ready_nodes(nodes: dict[str, Any]) -> set[str]:
    """Their names, of a NodeList."""
    return {
        node["metadata"]["name"]
        for node in nodes["items"]
        for condition in node.get("status", {}).get("conditions", [])
        if (condition["type"], condition["status"]) == ("Ready", "True")
    }


class LabExists(ConfigError):
    """There is a lab of the name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"lab {name} exists: remove it with `svcplane lab down --name {name}`")


class Cluster:
    """One lab.  `namespace(...)` names a member: control, client, node1, ..."""

    def __init__(self, lab: Lab, mode: str, state: Path = STATE) -> None:
        self.lab, self.mode = lab, mode
        self.directory = state / lab.name
        self._links = KernelLinks()
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "api" / "kubeconfig.lab"

    def namespace(self, member: str) -> str:
        """Of `control`, `client`, `node1`, `pod/NAME` or a name as `lab status` has it.

        Raises ConfigError for a member this lab does not have.
        """
        known = [space.removeprefix(self.lab.prefix) for space in self._links.namespaces(self.lab.prefix)]
        wanted = re.compile(rf"node\d+-pod-{re.escape(member.removeprefix('pod/'))}-[0-9a-f]{{8}}")
        pods = [name for name in known if wanted.fullmatch(name)] if member.startswith("pod/") else []
        found = [name for name in known if name == member] or pods
        if not found:
            raise ConfigError(f"lab {self.lab.name} has no {member!r}; it has: {', '.join(known) or 'nothing'}")
        if len(found) > 1:
            raise ConfigError(f"lab {self.lab.name} has {member!r} more than once: {', '.join(found)}")
        return self.lab.space(found[0])

    def address(self, member: str) -> str | None:
        """Of a member on the LAN."""
        known = {"control": CONTROL_IP, "client": CLIENT_IP, **{node.name: node.ip for node in self.lab.nodes}}
        return known.get(member)

    @property
    def exists(self) -> bool:
        return bool(self._links.namespaces(self.lab.prefix)) or self.directory.exists()

    # -- up --------------------------------------------------------------------------------------------------

    async def up(self) -> None:
        """Make the namespaces, start the processes and wait for the nodes; where that fails, nothing is left of it.

        The lab is this process's own until `keep`: if it dies before, the next `up` of the name removes what is left.
        Raises LabExists if a lab of the name is there.
        """
        preflight()
        if shutil.which("nsenter") is None:
            raise EnvironmentProblem("the program `nsenter` is missing: install util-linux")
        await self._claim()
        try:
            await to_the_end(asyncio.to_thread(ensure, self._links, self.lab.spaces(), fresh=True))
            await self._start()
            await self._nodes_ready()
        except BaseException:
            await to_the_end(self.down())
            raise

    @property
    def abandoned(self) -> bool:
        """Whether what made it, or showed it, died before it was done."""
        try:
            owner = ProcessId.parse(json.loads((self.directory / "lab.json").read_text()).get("owner", ""))
        except (OSError, ValueError):
            return False
        return owner is not None and not owner.alive

    async def _claim(self) -> None:
        """Make the state directory, whole or not at all: of two that begin at once one gets it."""
        if self.abandoned:
            await to_the_end(self.down())
        if self.exists:
            raise LabExists(self.lab.name)
        state = self.directory.parent
        for attempt in range(10):
            try:
                state.mkdir(parents=True, exist_ok=True, mode=0o700)
                with tempfile.TemporaryDirectory(prefix=".", dir=state, ignore_cleanup_errors=True) as made:
                    self._write_state(Path(made), str(ProcessId.of(os.getpid())))
                    Path(made).rename(self.directory)
                return
            except FileNotFoundError:  # another lab's `down` removed the empty directory
                if attempt == 9:
                    raise
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    raise LabExists(self.lab.name) from error
                raise EnvironmentProblem(f"cannot make {self.directory}: {error.strerror}") from error

    def _write_state(self, directory: Path, owner: str = "") -> None:
        made = {"name": self.lab.name, "nodes": self.lab.node_count, "mode": self.mode, "owner": owner}
        new = directory / "lab.json.new"
        new.write_text(json.dumps(made))
        new.rename(directory / "lab.json")

    def keep(self) -> None:
        """It is to go on without this process."""
        self._write_state(self.directory)

    async def _start(self) -> None:
        data = self.directory / "api"
        self._spawn(
            "apiserver",
            "control",
            "apiserver",
            f"--bind-address={CONTROL_IP}",
            f"--secure-port={API_PORT}",
            f"--data-dir={data}",
            f"--service-cluster-ip-range={SERVICE_CIDR}",
        )
        source = data / "kubeconfig"

        async def written() -> bool:
            return source.exists()

        await self._until(written, "apiserver")
        self.kubeconfig.write_text(source.read_text())
        self._spawn("controllers", "control", "controllers", f"--kubeconfig={self.kubeconfig}")
        nodes = self.lab.nodes
        authority = Authority(data / "pki")
        for node in nodes:
            cert, key = authority.node(node.name, [node.name, node.ip])
            self._spawn(
                f"{node.name}-agent",
                node.name,
                "node",
                f"--kubeconfig={self.kubeconfig}",
                f"--hostname-override={node.name}",
                f"--node-ip={node.ip}",
                f"--pod-cidr={node.pod_cidr}",
                f"--state-dir={self.directory / node.name}",
                f"--tls-cert-file={cert}",
                f"--tls-private-key-file={key}",
                f"--namespace-prefix={self.lab.space(f'{node.name}-pod-')}",
                *(["--with-scheduler"] if node is nodes[0] else []),
            )
        self.start_proxies(self.mode)

    async def _nodes_ready(self) -> None:
        """So that Pods that are made from now on are shared out among all nodes.  Raises EnvironmentProblem."""
        namespace = self.lab.space("control")
        transport = HttpTransport(load(self.kubeconfig), open_socket=lambda _: open_socket(namespace, Family.IPV4))
        api = ApiClient(transport, "svcplane-lab")
        try:
            for node in self.lab.nodes:

                async def ready(name: str = node.name) -> bool:
                    return name in ready_nodes(await api.list(NODES))

                await self._until(ready, f"{node.name}-agent")
        finally:
            await transport.close()

    def start_proxies(self, mode: str) -> None:
        self.mode = mode
        for node in self.lab.nodes:
            self._spawn_proxy(node.name)

    def _spawn_proxy(self, node: str, *flags: str) -> None:
        """`flags` overrule those every proxy of a lab has."""
        self._spawn(
            f"{node}-proxy",
            node,
            "proxy",
            f"--kubeconfig={self.kubeconfig}",
            f"--proxy-mode={self.mode}",
            f"--hostname-override={node}",
            f"--cluster-cidr={CLUSTER_CIDR}",
            *flags,
        )

    async def switch_mode(self, mode: str) -> None:
        """Start the proxies again in another mode; they remove the former mode's rules once theirs are there."""
        for node in self.lab.nodes:
            await self._stop(f"{node.name}-proxy")
        self.start_proxies(mode)

    async def start_proxy(self, node: str, *flags: str) -> None:
        """(Re)start a node's proxy.  Raises ConfigError where it is no node, EnvironmentProblem where it ends."""
        await self.stop_proxy(node)
        self._spawn_proxy(node, *flags)
        namespace = self.namespace(node)

        async def serves() -> bool:
            with open_socket(namespace, Family.IPV4) as asking:
                asking.settimeout(1.0)
                return asking.connect_ex(("127.0.0.1", HEALTH_PORT)) == 0

        await self._until(serves, f"{node}-proxy")

    async def stop_proxy(self, node: str) -> None:
        """Its rules stay.  Raises ConfigError where it is no node."""
        if node not in {one.name for one in self.lab.nodes}:
            names = ", ".join(one.name for one in self.lab.nodes)
            raise ConfigError(f"lab {self.lab.name} has no node {node!r}; it has: {names}")
        await self._stop(f"{node}-proxy")

    def _program(self) -> list[str]:
        return [sys.executable, "-c", "from svcplane.cli.main import main; main()"]

    def _spawn(self, name: str, member: str, *argv: str) -> None:
        log = self.directory / f"{name}.log"
        with open(log, "ab") as output:
            child = subprocess.Popen(
                command_in(self.lab.space(member), [*self._program(), *argv]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._children[name] = child
        with open(self.directory / "pids", "a", encoding="ascii") as file:
            file.write(f"{name} {ProcessId.of(child.pid)}\n")

    async def _until(self, condition: Callable[[], Awaitable[bool]], name: str) -> None:
        """Until a process has come so far.  Raises EnvironmentProblem where it ends, or takes too long."""
        child, why = self._children[name], f"it took more than {START_TIMEOUT_S:.0f} s"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await condition():
                    if child.poll() is not None:
                        why = f"it ended with status {child.returncode}"
                        break
                    await asyncio.sleep(0.02)
                else:
                    return
        said = (self.directory / f"{name}.log").read_text(errors="replace").strip().splitlines()
        raise EnvironmentProblem(f"the lab's {name} did not start: {said[-1] if said else why}")

    async def _stop(self, name: str) -> None:
        child = self._children.pop(name, None)
        if child is None:  # of a lab that another process has made
            for record in self._records(name):
                await record.stop(STOP_TIMEOUT_S)
            return
        child.terminate()
        try:
            await asyncio.to_thread(child.wait, STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def client(self) -> tuple[ApiClient, HttpTransport]:
        """An API client for a caller that has entered one of the lab's namespaces; close the transport."""
        transport = HttpTransport(load(self.kubeconfig))
        return ApiClient(transport, "svcplane-lab"), transport

    def dead(self) -> list[str]:
        """Processes of ours that have ended by themselves."""
        return [name for name, child in self._children.items() if child.poll() is not None]

    # -- down ------------------------------------------------------------------------------------------------

    async def down(self) -> None:
        """Remove everything of this lab.  Safe at any time, also after a crash; a second call does nothing."""
        for record in self._records():
            record.send(signal.SIGTERM)
        await self._end_inside(self._links.namespaces(self.lab.prefix))
        self._links.apply([DeleteNamespace(name) for name in self._links.namespaces(self.lab.prefix)])
        for child in self._children.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(child.wait, STOP_TIMEOUT_S)
        self._children.clear()
        await asyncio.to_thread(shutil.rmtree, self.directory, True)
        for empty in (self.directory.parent, self.directory.parent.parent):
            with contextlib.suppress(OSError):
                empty.rmdir()

    def _records(self, name: str = "") -> list[ProcessId]:
        """Processes that were started, or those of a name."""
        try:
            lines = (self.directory / "pids").read_text().splitlines()
        except OSError:
            return []
        pairs = (line.partition(" ") for line in lines)
        found = (ProcessId.parse(rest) for begun, _, rest in pairs if name in ("", begun))
        return [record for record in found if record is not None]

    @staticmethod
    async def _end_inside(names: Sequence[str]) -> None:
        """Agents first would restart nothing: everything goes at once.  Returns when all have ended."""
        for _ in range(50):
            left = [ProcessId.of(pid) for name in names for pid in pids_in(name) if pid != os.getpid()]
            if not left:
                return
            for process in left:
                process.send(signal.SIGKILL)
            await asyncio.gather(*(process.ended(STOP_TIMEOUT_S) for process in left))


def find(name: str, state: Path = STATE) -> Cluster:
    """A lab that was made earlier.  Raises ConfigError if there is none."""
    try:
        made = json.loads((state / name / "lab.json").read_text())
    except (OSError, ValueError):
        cluster = Cluster(Lab(name), "", state)
        if cluster.exists:
            return cluster
        others = [path.name for path in sorted(state.glob("[!.]*"))]
        remedy = f"; there is {', '.join(others)}" if others else ""
        raise ConfigError(
            f"there is no lab called {name!r}; `svcplane lab up --name {name}` makes it{remedy}"
        ) from None
    return Cluster(Lab(name, made["nodes"]), made["mode"], state)
