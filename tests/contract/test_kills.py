"""An API server killed under load, again and again, loses no write that it acknowledged and leaks no number.

SVCPLANE_KILLS says how often it is killed (10 where it is not set; 100 takes some minutes).
"""

import asyncio
import os
import random
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from svcplane.api import codec
from svcplane.api.resources import IP_ADDRESSES, SERVICES
from svcplane.api.status import StatusError
from svcplane.base.errors import TransportError
from svcplane.client.api import ApiClient
from svcplane.client.http import HttpTransport
from svcplane.client.kubeconfig import load
from svcplane.server.allocation import node_ports
from svcplane.server.in_use import PORT_PREFIX
from svcplane.store.sqlite import SqliteStore

KILLS = int(os.environ.get("SVCPLANE_KILLS", "10"))
WRITERS = 8
COMMAND = [sys.executable, "-c", "from svcplane.cli.main import main; main()", "apiserver"]
GONE = None
State = str | None  # the label a Service has, or GONE


@dataclass(slots=True)
class Ledger:
    """What the server acknowledged, and what was under way when it died."""

    acknowledged: dict[str, State] = field(default_factory=dict)
    under_way: dict[str, State] = field(default_factory=dict)
    writes: int = 0

    def allowed(self, name: str) -> set[State]:
        found = {self.acknowledged.get(name)}
        return found | {self.under_way[name]} if name in self.under_way else found


async def write(client: ApiClient, ledger: Ledger, name: str, wanted: State) -> None:
    """One write, noted before and after."""
    ledger.under_way[name] = wanted
    if wanted is GONE:
        await client.delete(SERVICES, "default", name)
    elif ledger.acknowledged.get(name) is GONE:
        meta = {"name": name, "labels": {"at": wanted}}
        body = {"metadata": meta, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}
        await client.create(SERVICES, "default", body)
    else:
        await client.patch(SERVICES, "default", name, {"metadata": {"labels": {"at": wanted}}})
    ledger.acknowledged[name] = wanted
    del ledger.under_way[name]
    ledger.writes += 1


async def writer(client: ApiClient, ledger: Ledger, prefix: str, chance: random.Random) -> None:
    """Writes until the server dies."""
    number = 0
    names = [f"{prefix}-{n}" for n in range(12)]
    while True:
        number += 1
        name = chance.choice(names)
        there = ledger.acknowledged.get(name) is not GONE
        wanted = GONE if there and chance.random() < 0.3 else f"v{number}"
        try:
            await write(client, ledger, name, wanted)
        except TransportError:
            return
        except StatusError as error:
            # a cut connection was tried again by the client: what was under way had been done
            if error.code not in (404, 409):
                raise
            return


class Server:
    """One data directory, one process after the other."""

    def __init__(self, data: Path) -> None:
        self.data = data
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> HttpTransport:
        with (self.data.parent / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *COMMAND, "--secure-port", str(self.port), "--data-dir", str(self.data), stdout=log, stderr=log
            )
        for _ in range(600):
            assert self.process.returncode is None, (self.data.parent / "log").read_text()[-3000:]
            if (self.data / "kubeconfig").exists():
                transport = HttpTransport(load(str(self.data / "kubeconfig")))
                try:
                    await ApiClient(transport).call("GET", "/readyz")
                    return transport
                except (TransportError, StatusError):
                    await transport.close()
            await asyncio.sleep(0.05)
        raise AssertionError("the server did not become ready")

    async def kill(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


async def check_numbers(data: Path) -> None:
    """Every number belongs to a Service that holds it, and every Service's number is recorded, once."""
    store = await SqliteStore.open(data)
    try:
        services = [codec.load(i.value, 0, SERVICES) for i in (await store.list(SERVICES.key_prefix())).items]
        ips = [ip for service in services for ip in service["spec"]["clusterIPs"]]
        ports = [port for service in services for port in node_ports(service["spec"])]
        recorded = [i.key.rpartition("/")[2] for i in (await store.list(IP_ADDRESSES.key_prefix())).items]
        given = [int(i.key.removeprefix(PORT_PREFIX)) for i in (await store.list(PORT_PREFIX)).items]
        assert sorted(ips) == sorted(recorded)
        assert sorted(ports) == sorted(given)
    finally:
        await store.close()


async def states(client: ApiClient) -> dict[str, State]:
    items = (await client.list(SERVICES, "default"))["items"]
    found: dict[str, Any] = {item["metadata"]["name"]: item["metadata"].get("labels", {}).get("at") for item in items}
    return found


@pytest.mark.timeout(60 + 15 * KILLS)
async def test_acknowledged_writes_survive_kills(tmp_path: Path) -> None:
    server, ledger = Server(tmp_path / "data"), Ledger()
    chance = random.Random(7)
    try:
        for _ in range(KILLS):
            transport = await server.start()
            try:
                client = ApiClient(transport)
                found = await states(client)
                for name in {*ledger.acknowledged, *ledger.under_way}:
                    assert found.get(name) in ledger.allowed(name), f"{name} is not as it was acknowledged"
                ledger.acknowledged = {name: state for name, state in found.items() if name != "kubernetes"}
                ledger.under_way.clear()
                writers = [asyncio.create_task(writer(client, ledger, f"w{n}", chance)) for n in range(WRITERS)]
                await asyncio.sleep(chance.uniform(0.05, 0.6))
                await server.kill()
                await asyncio.gather(*writers)
            finally:
                await transport.close()
            await check_numbers(server.data)
    finally:
        if server.process is not None:
            await server.kill()
    assert ledger.writes > 10 * KILLS, "there was hardly any load"
