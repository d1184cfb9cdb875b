"""What the capture table holds, each rule and element with what it is for.  Pure."""

from collections.abc import Iterator, Mapping, Sequence

from svcplane.base.net import Family, join_host_port
from svcplane.kernel.nft import objects as o
from svcplane.kernel.nft.listing import commented
from svcplane.proxy.plane import LiveRule
from svcplane.proxy.planes.userspace import names as n

SETS = {
    "reject-ips": "no endpoint: connections are refused",
    "drop-ips": "policy Local, endpoints on other nodes only: packets are dropped",
    "reject-nodeports": "no endpoint: connections to the node port are refused",
    "drop-nodeports": "policy Local, endpoints on other nodes only: packets to the node port are dropped",
    "nodeport-ips": "node ports answer on this address",
    "cluster-ips": "a ClusterIP: a port of it that no Service has is refused",
    "service-cidrs": "a Service's address: what no Service has is dropped",
    "local-sources": "what comes from there is a Pod's",
    "firewall-ips": "only its source ranges may connect",
}


def live_rules(
    content: o.TableContent,
    texts: Mapping[str, Sequence[str]],
    owners: Mapping[tuple[str, bytes], str],
    family: Family,
) -> Iterator[LiveRule]:
    """`texts`: the rules of each chain as the tool prints them; `owners`: whose an element is."""
    for name in sorted(content.sets):
        for key, element in content.elements.get(name, {}).items():
            if element.interval_end:
                continue
            owner = element.comment or owners.get((name, key), "")
            text, words = n.pretty(key, family), SETS.get(name, "connections are taken to the relay, at this port")
            data = element.data
            if isinstance(data, o.Verdict):
                text += f" : {data.code.name.lower()} {data.chain}".rstrip()
            elif data:
                text += f" : {join_host_port(*n.read_target(data))}"
            yield LiveRule(f"{'map' if data else 'set'} {name}", text, words, owner)
    for name, text, comment in commented(content, texts):
        yield LiveRule(f"chain {name}", text, comment)
