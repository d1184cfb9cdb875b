"""Chain names, exactly as kube-proxy hashes them.  Pure."""

import base64
import hashlib

from svcplane.proxy.model import ServicePortName


def _digest(text: str) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:16]


def port_chain(kind: str, name: ServicePortName) -> str:
    """`kind` is SVC, SVL, FW or EXT."""
    return f"KUBE-{kind}-{_digest(f'{name}{name.protocol.lower()}')}"


def endpoint_chain(name: ServicePortName, endpoint: str) -> str:
    return f"KUBE-SEP-{_digest(f'{name}{name.protocol.lower()}{endpoint}')}"
