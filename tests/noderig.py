"""A node between a client and two endpoints, each in a network namespace, and proxies on the node."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from svcplane.kernel.links.run import inside

PROGRAM = [sys.executable, "-c", "from svcplane.cli.main import main; main()"]
VIP, NODE_IP, ENDPOINTS, PORT = "10.96.0.10", "10.200.0.1", ("10.201.0.2", "10.201.0.3"), 8080


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


class Proxy:
    """A running `svcplane proxy` in a namespace.  `patience` times as long as usual is waited for it."""

    patience = 1.0

    def __init__(self, namespace: str, log: Path, *flags: str) -> None:
        self._namespace, self._log = namespace, log
        command = ["ip", "netns", "exec", namespace, *PROGRAM, "proxy", *flags]
        with log.open("ab") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def page(self, path: str, port: int = 10249) -> tuple[int, str]:
        """A page of the proxy's own; status 0 where nothing answers."""
        try:
            with inside(self._namespace):
                link = socket.create_connection(("127.0.0.1", port), timeout=5)
            with link:
                link.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                answer = b"".join(iter(lambda: link.recv(65536), b"")).decode()
        except OSError:
            return 0, ""
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split()[1]), body

    def until(self, done: Callable[[], bool], seconds: float = 20) -> None:
        """Wait for a condition while the proxy lives."""
        end = time.monotonic() + seconds * self.patience
        while not done():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.02 * self.patience)

    def ready(self) -> None:
        self.until(lambda: self.page("/healthz", 10256)[0] == 200)

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)


class Rig:
    """The namespaces, the servers behind the Service, and the manifests."""

    def __init__(self, directory: Path) -> None:
        mark = f"d{os.getpid() % 100000}"
        self.node, self.client, self.pods = (f"{mark}-{name}" for name in ("node", "client", "pods"))
        self.directory, self.manifests = directory, directory / "manifests"
        self.manifests.mkdir()
        self._listeners: list[socket.socket] = []
        self._proxies: list[Proxy] = []

    def __enter__(self) -> "Rig":
        for namespace in (self.node, self.client, self.pods):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        self._link(self.client, "c", [f"{NODE_IP}/24"], ["10.200.0.2/24"], NODE_IP)
        self._link(self.pods, "p", ["10.201.0.1/24"], [f"{address}/24" for address in ENDPOINTS], "10.201.0.1")
        for key in ("net.ipv4.ip_forward", "net.ipv4.conf.all.route_localnet"):
            value = "1" if key.endswith("forward") else "0"
            subprocess.run(["ip", "netns", "exec", self.node, "sysctl", "-qw", f"{key}={value}"], check=True)
        for address in ENDPOINTS:
            self.serve(address)
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self._proxies:
            proxy.end(signal.SIGKILL)
        workers = subprocess.run(["ip", "netns", "pids", self.node], check=False, capture_output=True, text=True)
        for pid in workers.stdout.split():  # they outlive their proxy
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        for listener in self._listeners:
            listener.close()
        for namespace in (self.node, self.client, self.pods):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)

    def _link(self, peer: str, name: str, here: list[str], there: list[str], gateway: str) -> None:
        ip("-n", self.node, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", peer)
        for space, link, addresses in ((self.node, name, here), (peer, "eth0", there)):
            for address in addresses:
                ip("-n", space, "address", "add", address, "dev", link)
            ip("-n", space, "link", "set", link, "up")
        ip("-n", peer, "route", "add", "default", "via", gateway)

    def serve(self, address: str) -> None:
        """Answer each connection with the endpoint's address, and then each line with itself."""
        with inside(self.pods):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = socket.create_server((address, PORT), family=family, backlog=512)
        self._listeners.append(listener)

        def answer(link: socket.socket) -> None:
            with link, contextlib.suppress(OSError):
                link.sendall(f"{address}\n".encode())
                while data := link.recv(4096):
                    link.sendall(data)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    link, _ = listener.accept()
                    threading.Thread(target=answer, args=(link,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    def kill(self, address: str) -> None:
        """The Pod at an endpoint's address ends; nobody is told."""
        for listener in self._listeners:
            if listener.getsockname()[0] == address:
                listener.shutdown(socket.SHUT_RDWR)  # wakes up who waits for it
                listener.close()
                self._listeners.remove(listener)
                return

    def connect(self, where: str = VIP, port: int = 80, timeout: float = 3) -> socket.socket:
        """A connection from the client.  Raises OSError."""
        with inside(self.client):
            return socket.create_connection((where, port), timeout=timeout)

    def ask(self, where: str = VIP, port: int = 80, timeout: float = 3) -> str:
        """Which endpoint answered.  Raises OSError."""
        with self.connect(where, port, timeout) as link:
            return link.makefile().readline().strip()

    def write(
        self,
        *endpoints: str,
        unready: str = "",
        name: str = "web",
        cluster_ip: str = VIP,
        node_port: int = 30080,
        annotations: dict[str, str] | None = None,
        **spec: Any,
    ) -> None:
        """A Service with these endpoints, of which one may be unready; Pod web-N is where an address ends in N."""
        metadata = {"name": name, "annotations": annotations or {}}
        ports = [{"port": 80, "nodePort": node_port}]
        service: dict[str, Any] = {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
        service["spec"] = {"clusterIP": cluster_ip, "type": "NodePort", "ports": ports, **spec}
        slice_ = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv6" if any(":" in address for address in endpoints) else "IPv4",
            "ports": [{"port": PORT}],
            "endpoints": [
                {
                    "addresses": [address],
                    "conditions": dict.fromkeys(("ready", "serving"), address != unready),
                    "targetRef": {
                        "kind": "Pod",
                        "namespace": "default",
                        "name": f"web-{re.split('[.:]', address)[-1]}",
                    },
                }
                for address in endpoints
            ],
        }
        fresh = self.manifests / f".{name}.json"
        fresh.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [service, slice_]}))
        fresh.rename(self.manifests / f"{name}.json")

    def proxy(self, *flags: str) -> Proxy:
        arguments = ("--manifests", str(self.manifests), "--hostname-override", "n1", *flags)
        proxy = Proxy(self.node, self.directory / "proxy.log", *arguments)
        self._proxies.append(proxy)
        return proxy

    def run(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """`svcplane proxy` to its end."""
        command = ["ip", "netns", "exec", self.node, *PROGRAM, "proxy", *flags]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def svcplane(self, *words: str) -> str:
        """What a verb prints on the node."""
        return self.on_node(*PROGRAM, *words)

    def on_node(self, *command: str) -> str:
        """What a program prints on the node."""
        command = ("ip", "netns", "exec", self.node, *command)
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
