"""Names of what ipvs mode keeps in the kernel.  Pure."""

from enum import StrEnum

from svcplane.base.net import Family
from svcplane.kernel.ipset.objects import IP, IP_PORT, IP_PORT_IP, IP_PORT_NET, Set

DEVICE = "kube-ipvs0"  # as kube-proxy's, which other programs know to pass over
GUARD, SERVICES, POSTROUTING = "SVCPLANE-IPVS-GUARD", "SVCPLANE-IPVS-SERVICES", "SVCPLANE-IPVS-POSTROUTING"
INPUT, FORWARD = "SVCPLANE-IPVS-INPUT", "SVCPLANE-IPVS-FORWARD"
INTAKE, TAKEN = "SVCPLANE-IPVS-INTAKE", "SVCPLANE-IPVS-TAKEN"


class Kind(StrEnum):
    """What membership means."""

    CLUSTER_IP = "CLUSTER-IP"  # virtual servers at cluster IPs
    EXTERNAL = "EXTERNAL"  # virtual servers for outsiders, who are masqueraded
    LOCAL = "LOCAL"  # policy Local with endpoints here: addresses are kept
    ELSEWHERE = "ELSEWHERE"  # policy Local with endpoints on other nodes only: for this node and its Pods alone
    GUARDED = "GUARDED"  # only sources in ALLOWED may
    ALLOWED = "ALLOWED"
    LOOP_BACK = "LOOP-BACK"  # endpoints of this node that reach themselves
    HEALTH_CHECK = "HEALTH-CHECK"  # health check node ports, on the node's and the Services' external addresses
    ADDRESSES = "ADDRESSES"  # all addresses on the device
    NEIGHBOUR = "NEIGHBOUR"  # virtual servers at addresses that another host may have: taken in by a mark


SERVER_KINDS = (Kind.CLUSTER_IP, Kind.EXTERNAL, Kind.LOCAL, Kind.ELSEWHERE)
_TYPES = {Kind.ALLOWED: IP_PORT_NET, Kind.LOOP_BACK: IP_PORT_IP, Kind.ADDRESSES: IP}


def set_name(kind: Kind, family: Family) -> str:
    return f"SVCPLANE-{'6-' if family is Family.IPV6 else ''}{kind}"


def set_of(kind: Kind, family: Family) -> Set:
    return Set(set_name(kind, family), _TYPES.get(kind, IP_PORT), family)
