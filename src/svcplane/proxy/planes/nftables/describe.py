"""What the table holds, in words, each rule and element with what it is for.  Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence

from svcplane.base.net import Family, join_host_port
from svcplane.kernel.nft import objects as o
from svcplane.kernel.nft.listing import commented
from svcplane.proxy.model import ServicePortName
from svcplane.proxy.plane import LiveRule
from svcplane.proxy.planes.nftables import names as n
from svcplane.proxy.planes.nftables.plan import pretty

SETS = {
    "cluster-ips": "a ClusterIP: a port of it that no Service has is refused",
    "nodeport-ips": "node ports answer on this address",
    "local-sources": "what comes from there is a Pod's, and keeps its address",
    "service-cidrs": "a Service's address: nobody else is there, so what no Service has is dropped",
    "hairpin-connections": "a Pod that reaches itself through a Service is masqueraded",
    "firewall-ips": "only its source ranges may connect",
    "endpoints": "an endpoint, chosen by its number in the pool",
    "endpoint-ids": "what affinity remembers of an endpoint of the pool",
    "endpoints-by-id": "an endpoint that affinity remembers",
    "affinity": "a client that sticks to an endpoint",
    "reject-ips": "no endpoint: connections are refused",
    "drop-ips": "policy Local, endpoints on other nodes only: packets are dropped",
    "reject-nodeports": "no endpoint: connections to the node port are refused",
    "drop-nodeports": "policy Local, endpoints on other nodes only: packets to the node port are dropped",
    **dict.fromkeys(n.CLASS_MAP.values(), "how a Service's packets are treated"),
    **dict.fromkeys(n.POOL_MAP.values(), "which endpoints a Service has"),
    **dict.fromkeys(n.CHAIN_MAP.values(), "the chain of all Services that are treated alike"),
}
CHAINS = (
    ("filter-(prerouting|output)-pre-dnat", "before the translation: source ranges of load balancers"),
    ("(input|onward)-checks", "what becomes of new connections that no Service took"),
    ("nat-(prerouting|output)", "new connections come by here to be translated"),
    ("nat-postrouting", "masquerades what was marked"),
    ("filter-", "refuses and drops what no endpoint is for"),
    ("services", "finds the Service of a new connection"),
    ("mark-for-masquerade", "has postrouting masquerade the connection"),
    ("firewall-check", "source ranges of load balancers"),
    ("firewall-", "the source ranges of one load balancer"),
    ("service-endpoints-check", "Services without an endpoint"),
    ("nodeport-endpoints-check", "node ports without an endpoint"),
    ("cluster-ips-check", "addresses and ports that no Service has"),
    ("address-cluster-ip-pick", "chooses one of the endpoints; masquerades what comes from outside the cluster"),
    ("(address|nodeport).*masquerade-pick", "masquerades, then chooses one of the endpoints"),
    ("(address|nodeport).*local-pick", "policy Local: this node's endpoints, for Pods all"),
    ("(address|nodeport).*pick", "chooses one of the endpoints"),
)


def live_rules(
    content: o.TableContent, texts: Mapping[str, Sequence[str]], pools: Mapping[int, ServicePortName], family: Family
) -> Iterator[LiveRule]:
    """`texts`: the rules of each chain as the tool prints them; `pools`: whose each is."""
    owners = _frontends(content, pools)
    for name in sorted(content.sets, key=lambda one: (one not in n.CLASS_MAP.values(), one)):
        place = f"{'map' if content.sets[name].data else 'set'} {name}"
        for key, element in content.elements.get(name, {}).items():
            if not element.interval_end:
                owner = element.comment or str(owners.get(key) or _pool_owner(name, key, pools) or "")
                yield LiveRule(place, _element(name, key, element, family), SETS.get(name, ""), owner)
    for name, text, comment in commented(content, texts):
        yield LiveRule(f"chain {name}", text, comment or _chain(name))


def _chain(name: str) -> str:
    return next((words for pattern, words in CHAINS if re.match(pattern, name)), "")


def _frontends(content: o.TableContent, pools: Mapping[int, ServicePortName]) -> dict[bytes, ServicePortName]:
    """Whose each address and port is, by its pool."""
    return {
        key: pools[n.unword(element.data)]
        for name in n.POOL_MAP.values()
        for key, element in content.elements.get(name, {}).items()
        if isinstance(element.data, bytes) and n.unword(element.data) in pools
    }


def _pool_owner(name: str, key: bytes, pools: Mapping[int, ServicePortName]) -> ServicePortName | None:
    if name in ("endpoints", "endpoint-ids", "endpoints-by-id"):
        return pools.get(n.unword(key[:4]))
    return pools.get(n.unword(key[-4:])) if name == "affinity" else None


def _element(name: str, key: bytes, element: o.Element, family: Family) -> str:
    data = element.data
    if name == "affinity":
        return f"{pretty('cluster-ips', key[:-4], family)} at service port {n.unword(key[-4:])}"
    text = pretty(name, key, family)
    if isinstance(data, o.Verdict):
        return f"{text} : {data.code.name.lower()} {data.chain}".rstrip()
    if not data:
        return text
    if name in ("endpoints", "endpoints-by-id"):
        return f"{text} : {join_host_port(*n.read_endpoint(data))}"
    if name in n.POOL_MAP.values():
        return f"{text} : pool {n.unword(data)}"
    if name in n.CLASS_MAP.values():
        class_ = n.Class.unpacked(data)
        kind, ending = class_.kind.name.lower().replace("_", " "), "s" if class_.slots != 1 else ""
        sticky = f", affinity {class_.affinity_timeout_s} s" if class_.affinity_timeout_s else ""
        return f"{text} : {kind}, {class_.slots} endpoint{ending}{sticky}"
    return f"{text} : {n.unword(data)}"
