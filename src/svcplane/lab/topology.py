"""What a lab's namespaces hold.  Pure.

           control 172.31.0.1     client 172.31.0.100
                 |                   |
    ------------- lan: bridge br0, 172.31.0.0/24 -------------
                 |                   |
          node1 172.31.0.11    node2 172.31.0.12   ...
          Pods 10.244.1.0/24   Pods 10.244.2.0/24

Nodes route each other's Pods; the client routes the Service range to the first node and Pods to their nodes.
"""

from dataclasses import dataclass

from svcplane.kernel.links.objects import DEFAULT, Address, Bridge, NetworkSpace, Route, Veth

MARK = "svcplane lab "
CONTROL_IP, CLIENT_IP = "172.31.0.1", "172.31.0.100"
CLIENT_IPS = (CLIENT_IP, *(f"172.31.0.{number}" for number in range(101, 108)))  # it stands for several clients
SERVICE_CIDR, CLUSTER_CIDR = "10.96.0.0/16", "10.244.0.0/16"
API_PORT = 6443
MAX_NODES = 80
# All are on one link, so that a node which has no rules for a Service address yet would tell the sender of a better
# way to nowhere, which the sender then remembers for minutes.
SYSCTLS = {f"ipv4/conf/{where}/accept_redirects": "0" for where in ("all", "default", "eth0")}
NODE_SYSCTLS = {
    "ipv4/ip_forward": "1",
    **{f"ipv4/conf/{where}/send_redirects": "0" for where in ("all", "default", "eth0")},
}


@dataclass(frozen=True, slots=True)
class LabNode:
    name: str
    namespace: str
    ip: str
    pod_cidr: str


@dataclass(frozen=True, slots=True)
class Lab:
    """A topology as a value."""

    name: str
    node_count: int = 2

    @property
    def prefix(self) -> str:
        """All of a lab's namespaces, those of its Pods included, begin so."""
        return f"svclab-{self.name}-"

    def space(self, name: str) -> str:
        return self.prefix + name

    @property
    def nodes(self) -> tuple[LabNode, ...]:
        return tuple(
            LabNode(f"node{n}", self.space(f"node{n}"), f"172.31.0.{10 + n}", f"10.244.{n}.0/24")
            for n in range(1, self.node_count + 1)
        )

    def spaces(self) -> list[NetworkSpace]:
        """Everything `ensure` has to make."""
        nodes = self.nodes
        members = [("control", CONTROL_IP), ("client", CLIENT_IP), *((node.name, node.ip) for node in nodes)]
        links: tuple[Veth | Bridge, ...] = (
            Bridge("br0", MARK + self.name),
            *(Veth(f"l-{name}", "eth0", self.space(name), MARK + self.name, master="br0") for name, _ in members),
        )
        made = [NetworkSpace(self.space("lan"), links=links)]
        for name, ip in members:
            routes = [Route.to(node.pod_cidr, "eth0", via=node.ip) for node in nodes if node.name != name]
            if name == "client":
                routes.append(Route.to(SERVICE_CIDR, "eth0", via=nodes[0].ip))
            elif name != "control":
                routes.append(Route.to(DEFAULT, "eth0", via=CONTROL_IP))
            made.append(
                NetworkSpace(
                    self.space(name),
                    up=("eth0",),
                    addresses=tuple(
                        Address("eth0", f"{each}/24") for each in (CLIENT_IPS if name == "client" else [ip])
                    ),
                    routes=tuple(routes),
                    sysctls=NODE_SYSCTLS if name.startswith("node") else SYSCTLS,
                )
            )
        return made
