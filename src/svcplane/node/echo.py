"""The built-in image svcplane/echo: answers every request with the name of the Pod that got it.

TCP: a line that looks like an HTTP request gets an HTTP answer, any other line (or an end of input) the Pod's
name.  UDP: each datagram is answered by the Pod's name.  HTTP paths: /healthz answers 200, after a request for
/fail 503 until one for /recover; all others answer the name.  Ports: ECHO_PORTS (`TCP:8080,UDP:8080`),
default TCP and UDP 8080.  Standard library alone, so that it starts at once.
"""

import contextlib
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType

METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ")
REQUEST_MAX = 16 * 1024
IDLE_S = 30.0
healthy = True


def name() -> str:
    """Who answers."""
    return os.environ.get("POD_NAME") or socket.gethostname()


def answer(request: bytes) -> bytes | None:
    """The answer to what a TCP client has sent so far; None while it is incomplete."""
    if not request.startswith(METHODS):
        return name().encode() + b"\n" if b"\n" in request or len(request) >= REQUEST_MAX else None
    head, blank, _ = request.partition(b"\r\n\r\n")
    if not blank and len(request) < REQUEST_MAX:
        return None
    path = head.split(b"\r\n", 1)[0].split(b" ")[1].partition(b"?")[0]
    status, body = respond(path)
    lines = [f"HTTP/1.1 {status}", "Content-Type: text/plain", f"Content-Length: {len(body)}", "Connection: close"]
    text = "\r\n".join([*lines, "", ""]).encode()
    return text if request.startswith(b"HEAD ") else text + body


def respond(path: bytes) -> tuple[str, bytes]:
    """Status line and body of a path."""
    global healthy
    if path in (b"/fail", b"/recover"):
        healthy = path == b"/recover"
    if path == b"/healthz" and not healthy:
        return "503 Service Unavailable", b"not ready\n"
    return "200 OK", name().encode() + b"\n"


def listeners(ports: str) -> list[tuple[str, int]]:
    """`TCP:8080,UDP:53` as pairs."""
    pairs = []
    for word in ports.split(","):
        if word.strip():
            protocol, _, number = word.strip().partition(":")
            pairs.append((protocol.upper(), int(number)))
    return pairs or [("TCP", 8080), ("UDP", 8080)]


class Server:
    """One thread, one selector; a connection is answered once and closed."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.pending: dict[socket.socket, bytes] = {}

    def listen(self, protocol: str, port: int) -> None:
        kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
        made = socket.socket(socket.AF_INET6, kind)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("::", port))
        made.setblocking(False)
        handle: Callable[[], None]
        if kind == socket.SOCK_STREAM:
            made.listen(1024)
            handle = lambda: self.accept(made)  # noqa: E731
        else:
            handle = lambda: self.datagram(made)  # noqa: E731
        self.selector.register(made, selectors.EVENT_READ, handle)

    def datagram(self, made: socket.socket) -> None:
        with contextlib.suppress(OSError):
            _, peer = made.recvfrom(65536)
            made.sendto(name().encode() + b"\n", peer)

    def accept(self, made: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = made.accept()
            connection.settimeout(IDLE_S)
            connection.setblocking(False)
            self.pending[connection] = b""
            self.selector.register(connection, selectors.EVENT_READ, lambda: self.receive(connection))

    def receive(self, connection: socket.socket) -> None:
        reply: bytes | None = None
        try:
            data = connection.recv(65536)
            self.pending[connection] += data
            reply = answer(self.pending[connection]) if data else name().encode() + b"\n"
            if reply is not None:
                connection.sendall(reply)
        except BlockingIOError:
            return
        except OSError:
            reply = b""
        if reply is not None:
            self.selector.unregister(connection)
            del self.pending[connection]
            connection.close()

    def run(self) -> None:
        while True:
            for key, _ in self.selector.select():
                key.data()


def stop(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> None:
    signal.signal(signal.SIGTERM, stop)
    server = Server()
    ports = listeners(os.environ.get("ECHO_PORTS", ""))
    for protocol, port in ports:
        server.listen(protocol, port)
    print(f"{name()} answers on {', '.join(f'{protocol} {port}' for protocol, port in ports)}", flush=True)
    server.run()


if __name__ == "__main__":
    main()
