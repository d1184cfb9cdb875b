"""A lab's namespaces, processes and state directory.

State: DIR/NAME/lab.json (how it was made), DIR/NAME/pids (`NAME PID STARTTIME` lines), logs, the API server's data.
`down` needs nothing but the name: it ends every process in the lab's namespaces and removes all of them.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from svcplane.base.errors import ConfigError, EnvironmentProblem
from svcplane.client.api import ApiClient
from svcplane.client.http import HttpTransport
from svcplane.client.kubeconfig import load
from svcplane.kernel.links.objects import DeleteNamespace
from svcplane.kernel.links.run import KernelLinks, command_in, ensure, pids_in, preflight
from svcplane.lab.topology import API_PORT, CLUSTER_CIDR, CONTROL_IP, SERVICE_CIDR, Lab
from svcplane.node.processes import ProcessId

START_TIMEOUT_S, STOP_TIMEOUT_S = 30.0, 10.0
STATE = Path("/run/svcplane/lab")


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
        """Raises ConfigError for a member this lab does not have."""
        name = self.lab.space(member)
        if name not in self._links.namespaces(self.lab.prefix):
            known = [space.removeprefix(self.lab.prefix) for space in self._links.namespaces(self.lab.prefix)]
            raise ConfigError(f"lab {self.lab.name} has no {member!r}; it has: {', '.join(known) or 'nothing'}")
        return name

    @property
    def exists(self) -> bool:
        return bool(self._links.namespaces(self.lab.prefix)) or self.directory.exists()

    # -- up --------------------------------------------------------------------------------------------------

    async def up(self) -> None:
        """Make the namespaces and start the processes.  Raises ConfigError if a lab of the name is there."""
        preflight()
        if shutil.which("nsenter") is None:
            raise EnvironmentProblem("the program `nsenter` is missing: install util-linux")
        if self.exists:
            raise ConfigError(f"lab {self.lab.name} exists: remove it with `svcplane lab down --name {self.lab.name}`")
        self.directory.mkdir(parents=True, mode=0o700)
        made = {"name": self.lab.name, "nodes": self.lab.node_count, "mode": self.mode}
        (self.directory / "lab.json").write_text(json.dumps(made))
        await _finished(asyncio.to_thread(ensure, self._links, self.lab.spaces(), fresh=True))
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
        await self._until(source.exists, "apiserver")
        self.kubeconfig.write_text(source.read_text())
        self._spawn("controllers", "control", "controllers", f"--kubeconfig={self.kubeconfig}")
        nodes = self.lab.nodes
        for node in nodes:
            self._spawn(
                f"{node.name}-agent",
                node.name,
                "node",
                f"--kubeconfig={self.kubeconfig}",
                f"--hostname-override={node.name}",
                f"--node-ip={node.ip}",
                f"--pod-cidr={node.pod_cidr}",
                f"--state-dir={self.directory / node.name}",
                f"--address={node.ip}",
                f"--namespace-prefix={self.lab.space(f'{node.name}-pod-')}",
                *(["--with-scheduler"] if node is nodes[0] else []),
            )
        self.start_proxies(self.mode)

    def start_proxies(self, mode: str) -> None:
        self.mode = mode
        for node in self.lab.nodes:
            self._spawn(
                f"{node.name}-proxy",
                node.name,
                "proxy",
                f"--kubeconfig={self.kubeconfig}",
                f"--proxy-mode={mode}",
                f"--hostname-override={node.name}",
                f"--cluster-cidr={CLUSTER_CIDR}",
            )

    async def switch_mode(self, mode: str) -> None:
        """Stop the proxies, remove their rules, start those of another mode."""
        for node in self.lab.nodes:
            await self._stop(f"{node.name}-proxy")
            argv = command_in(node.namespace, [*self._program(), "proxy", "--cleanup"])
            await asyncio.to_thread(subprocess.run, argv, capture_output=True, check=False, timeout=STOP_TIMEOUT_S)
        self.start_proxies(mode)

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

    async def _until(self, condition: object, name: str) -> None:
        child = self._children[name]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                while not condition():  # type: ignore[operator]
                    if child.poll() is not None:
                        break
                    await asyncio.sleep(0.02)
                else:
                    return
        said = (self.directory / f"{name}.log").read_text(errors="replace").strip().splitlines()
        raise EnvironmentProblem(f"the lab's {name} did not start: {said[-1] if said else 'no message'}")

    async def _stop(self, name: str) -> None:
        child = self._children.pop(name, None)
        if child is not None:
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
        names = self._links.namespaces(self.lab.prefix)
        await asyncio.to_thread(self._kill_inside, names)
        self._links.apply([DeleteNamespace(name) for name in self._links.namespaces(self.lab.prefix)])
        for child in self._children.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(child.wait, STOP_TIMEOUT_S)
        self._children.clear()
        await asyncio.to_thread(shutil.rmtree, self.directory, True)
        for empty in (self.directory.parent, self.directory.parent.parent):
            with contextlib.suppress(OSError):
                empty.rmdir()

    def _records(self) -> list[ProcessId]:
        try:
            lines = (self.directory / "pids").read_text().splitlines()
        except OSError:
            return []
        found = (ProcessId.parse(line.partition(" ")[2]) for line in lines)
        return [record for record in found if record is not None]

    @staticmethod
    def _kill_inside(names: Sequence[str]) -> None:
        """Agents first would restart nothing: everything goes at once."""
        for _ in range(50):
            left = [pid for name in names for pid in pids_in(name) if pid != os.getpid()]
            if not left:
                return
            for pid in left:
                ProcessId.of(pid).send(signal.SIGKILL)


async def _finished(work: Coroutine[Any, Any, object]) -> None:
    """Await work in a thread to its end even when cancelled: a thread goes on, and would make what `down` removes."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


def find(name: str, state: Path = STATE) -> Cluster:
    """A lab that was made earlier.  Raises ConfigError if there is none."""
    try:
        made = json.loads((state / name / "lab.json").read_text())
    except (OSError, ValueError):
        cluster = Cluster(Lab(name), "", state)
        if cluster.exists:
            return cluster
        raise ConfigError(f"there is no lab called {name!r}; `svcplane lab up --name {name}` makes it") from None
    return Cluster(Lab(name, made["nodes"]), made["mode"], state)
