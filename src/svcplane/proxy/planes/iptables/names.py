"""Names of chains.  Those of service ports are exactly as kube-proxy hashes them.  Pure."""

import base64
import hashlib
import ipaddress
import re

from svcplane.base.net import Family
from svcplane.proxy.model import ServicePortName

NAME_LIMIT = 28  # XT_EXTENSION_MAXNAMELEN, less the terminating zero
CLOCK = "KUBE-PROXY-CLOCK"  # a list of `recent`

# chains we make, or that kube-proxy makes and we take over
OURS = re.compile(
    r"KUBE-((SVC|SVL|FW|EXT|SEP)-[A-Z2-7]{16}|(NET|NP|HP|REJ|XRJ|XNP|FWL|HC)-.+"
    r"|SERVICES|NODEPORTS|POSTROUTING|HAIRPIN|MARK-MASQ|FORWARD|EXTERNAL-SERVICES|EXTERNAL-PORTS"
    r"|PROXY-FIREWALL|PROXY-LOCALNET|PROXY-CANARY|PROXY-CLOCK)$"
)


def _digest(text: str) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()[:10]).decode()  # sixteen letters


def port_chain(kind: str, name: ServicePortName) -> str:
    """`kind` is SVC, SVL, FW or EXT."""
    return f"KUBE-{kind}-{_digest(f'{name}{name.protocol.lower()}')}"


def endpoint_list(name: ServicePortName, endpoint: str) -> str:
    """The `recent` list of an endpoint's clients (in kube-proxy, also the endpoint's chain)."""
    return f"KUBE-SEP-{_digest(f'{name}{name.protocol.lower()}{endpoint}')}"


def prefix(family: Family, length: int, value: int) -> str:
    """The CIDR of a prefix of an address."""
    network = ipaddress.IPv4Network if family is Family.IPV4 else ipaddress.IPv6Network
    width = 32 if family is Family.IPV4 else 128
    return str(network((value << (width - length), length)))


def branch_chain(kind: str, text: str) -> str:
    """A chain of a dispatch tree: legible where its name fits."""
    name = f"KUBE-{kind}-{text}"
    return name if len(name) <= NAME_LIMIT else f"KUBE-{kind}-{_digest(text)}"
