"""An API server with many Services behind it and a proxy that follows it, each a process of its own."""

import asyncio
import contextlib
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from svcplane.api import codec
from svcplane.api.resources import ENDPOINT_SLICES, SERVICES
from svcplane.server.in_use import ip_key, ip_record
from svcplane.store.contract import Put, Transaction
from svcplane.store.sqlite import SqliteStore

PROGRAM = [sys.executable, "-c", "from svcplane.cli.main import main; main()"]
CPUCLOCK_SCHED = 2
NEWGEN = 0x0A0F  # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN
NFNLGRP_NFTABLES = 7
NETLINK_NETFILTER = 12


def cluster_ip(number: int) -> str:
    at = number + 256  # the API server's own Service has the first address
    return f"10.{96 + (at >> 16)}.{at >> 8 & 255}.{at & 255}"


def endpoint_ip(service: int, number: int) -> str:
    at = service * 16 + number
    return f"10.{128 + (at >> 16)}.{at >> 8 & 255}.{at & 255}"


def service_tree(number: int) -> dict[str, Any]:
    ip = cluster_ip(number + 1)
    meta = {"name": f"svc-{number}", "namespace": "default", "uid": f"s-{number}"}
    spec = {
        "type": "ClusterIP",
        "clusterIP": ip,
        "clusterIPs": [ip],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster",
        "sessionAffinity": "None",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
    }
    return {
        "metadata": {**meta, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
        "status": {"loadBalancer": {}},
    }


def slice_name(service: int) -> str:
    return f"svc-{service}-abcde"


def slice_tree(number: int, count: int) -> dict[str, Any]:
    labels = {"kubernetes.io/service-name": f"svc-{number}"}
    meta = {"name": slice_name(number), "namespace": "default", "uid": f"e-{number}", "labels": labels}
    addresses = [endpoint_ip(number, at) for at in range(count)]
    return {
        "metadata": {**meta, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [address],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": f"node-{at % 10}",
                "targetRef": {"kind": "Pod", "namespace": "default", "name": f"svc-{number}-{at}"},
            }
            for at, address in enumerate(addresses)
        ],
    }


async def fill(directory: Path, services: int, endpoints: int) -> None:
    """Straight into the store that the server will open."""
    store = await SqliteStore.open(directory)
    try:
        puts = []
        for number in range(services):
            tree, ip = service_tree(number), cluster_ip(number + 1)
            puts.append(Put(SERVICES.key("default", f"svc-{number}"), codec.encode_stored(tree)))
            puts.append(
                Put(ip_key(ip), ip_record(ip, "default", f"svc-{number}", tree["metadata"]["creationTimestamp"]))
            )
            tree = slice_tree(number, endpoints)
            puts.append(Put(ENDPOINT_SLICES.key("default", tree["metadata"]["name"]), codec.encode_stored(tree)))
        for start in range(0, len(puts), 500):
            await store.commit(Transaction(tuple(puts[start : start + 500])))
    finally:
        await store.close()


@contextlib.contextmanager
def process(*arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        child = subprocess.Popen([*PROGRAM, *arguments], stdout=file, stderr=file)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)


async def answers(url: str, child: subprocess.Popen[bytes], seconds: float = 120) -> None:
    """Wait until a page is there and says that all is well."""
    end = time.monotonic() + seconds
    while child.poll() is None and time.monotonic() < end:
        if is_good(url):
            return
        await asyncio.sleep(0.01)
    raise SystemExit(f"{url} does not answer")


def is_good(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


@contextlib.asynccontextmanager
async def api_server(directory: Path, services: int, endpoints: int) -> AsyncIterator[Path]:
    """Gives the kubeconfig."""
    data = directory / "data"
    data.mkdir()
    await fill(data, services, endpoints)
    flags = ["--data-dir", str(data), "--bind-address", "127.0.0.1", "--secure-port", "6443"]
    with process("apiserver", *flags, "--service-cluster-ip-range", "10.96.0.0/12", log=directory / "api.log") as child:
        kubeconfig = data / "kubeconfig"
        while not kubeconfig.exists() or not listens(6443):
            if child.poll() is not None:
                raise SystemExit((directory / "api.log").read_text())
            await asyncio.sleep(0.05)
        yield kubeconfig


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def memory_mb(child: subprocess.Popen[bytes], what: str = "VmRSS") -> float:
    for line in Path(f"/proc/{child.pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"no {what}")


def processor_s(child: subprocess.Popen[bytes]) -> float:
    """Processor time so far, in user mode and in the kernel, by its own clock: ticks of 10 ms are too coarse.

    The clock's number is made as the kernel's `include/linux/posix-timers.h` does: process, scheduler's time.
    """
    return time.clock_gettime((~child.pid << 3) | CPUCLOCK_SCHED)


class Generations:
    """When the kernel committed nf_tables transactions (perf_counter seconds), as it tells its listeners."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        self._socket.settimeout(0.2)
        self._loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[float] = asyncio.Queue()
        self.last = 0.0
        self.count = 0
        self._open = True
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while self._open:
            try:
                data = self._socket.recv(1 << 20)
            except TimeoutError:
                continue
            now, at = time.perf_counter(), 0
            while at + 16 <= len(data):
                length, kind = struct.unpack_from("=IH", data, at)
                if kind == NEWGEN:
                    self.last, self.count = now, self.count + 1
                    self._loop.call_soon_threadsafe(self.queue.put_nowait, now)
                at += (length + 3) & ~3

    def close(self) -> None:
        self._open = False
        self._thread.join()
        self._socket.close()
