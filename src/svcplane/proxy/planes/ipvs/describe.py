"""What the kernel holds of ipvs mode: virtual servers, their targets, sets, rules, addresses.  Pure."""

from collections.abc import Iterator

from svcplane.base.net import Family, join_host_port
from svcplane.proxy.plane import LiveRule
from svcplane.proxy.planes.ipvs import names as n
from svcplane.proxy.planes.ipvs.book import Book
from svcplane.proxy.planes.ipvs.observe import Observed
from svcplane.proxy.planes.ipvs.rules import JUMPS

KINDS = {
    n.Kind.CLUSTER_IP: "a virtual server at a ClusterIP",
    n.Kind.EXTERNAL: "a virtual server for outsiders, who are masqueraded",
    n.Kind.LOCAL: "policy Local with endpoints here: clients keep their addresses",
    n.Kind.ELSEWHERE: "policy Local with endpoints elsewhere only: for this node and its Pods alone",
    n.Kind.GUARDED: "only the load balancer's source ranges may connect",
    n.Kind.ALLOWED: "a source range that may connect",
    n.Kind.LOOP_BACK: "a Pod that reaches itself through a Service is masqueraded",
    n.Kind.HEALTH_CHECK: "health checks are let in",
    n.Kind.NEIGHBOUR: "a virtual server at an address that another host may have: its packets are taken in",
    n.Kind.ADDRESSES: "an address of a Service: ports that no Service has are refused",
}
CHAINS = {
    n.GUARD: "source ranges of load balancers",
    n.INTAKE: "marks packets for a neighbour's address, so that this node takes them in",
    n.TAKEN: "takes that mark away again",
    n.SERVICES: "marks what is to be masqueraded",
    n.POSTROUTING: "masquerades what was marked",
    n.INPUT: "lets health checks in, refuses what no virtual server is for",
    n.FORWARD: "lets through what belongs to Services",
}


def live_rules(observed: Observed, book: Book, family: Family) -> Iterator[LiveRule]:
    live = observed.live
    for key, (server, targets) in live.servers.items():
        owner = str(book.servers.owner(key) or "")
        sticky = f", each client to one for {server.timeout_s} s" if server.timeout_s else ""
        words = f"chooses among {len(targets)} endpoints by {server.scheduler}{sticky}"
        yield LiveRule(f"virtual server {key}", f"scheduler {server.scheduler}", words, owner)
        for target, weight in targets.items():
            text = f"{join_host_port(*target)} weight {weight}"
            purpose = "an endpoint" if weight else "an endpoint that ends: connections go on, new ones go elsewhere"
            yield LiveRule(f"virtual server {key}", text, purpose, owner)
    for kind, entries in live.entries.items():
        for entry in sorted(map(str, entries)):
            yield LiveRule(f"set {n.set_name(kind, family)}", entry, KINDS[kind])
    for address in sorted(live.addresses):
        yield LiveRule(f"device {n.DEVICE}", address, "has the kernel take packets to a Service's address for its own")
    for table, chain in dict.fromkeys((table, chain) for table, _, chain in JUMPS):
        for rule in observed.tables.get(table, {}).get(chain, ()):
            yield LiveRule(f"{table} {chain}", rule, CHAINS[chain])
    for table, hook, chain in JUMPS:
        if f"-j {chain}" in observed.tables.get(table, {}).get(hook, ()):
            yield LiveRule(f"{table} {hook}", f"-j {chain}", CHAINS[chain])
