"""kube-proxy's nftables layout as text for `nft -f -`: a chain for each Service and endpoint, one verdict map.

Written from the layout's description (KEP-3866) and what kube-proxy 1.36 writes, for comparison: what a ClusterIP
Service has, and what every new connection meets.
"""

import subprocess
from collections.abc import Iterator, Mapping

from benchmarks.cluster_load import cluster_ip, endpoint_ip

TABLE = "kube-proxy"
SKELETON = f"""
add table ip {TABLE}
add set ip {TABLE} cluster-ips {{ type ipv4_addr ; }}
add map ip {TABLE} service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict ; }}
add map ip {TABLE} service-nodeports {{ type inet_proto . inet_service : verdict ; }}
add map ip {TABLE} firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict ; }}
add map ip {TABLE} no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict ; }}
add map ip {TABLE} no-endpoint-nodeports {{ type inet_proto . inet_service : verdict ; }}
add chain ip {TABLE} mark-for-masquerade
add rule ip {TABLE} mark-for-masquerade mark set mark or 0x4000
add chain ip {TABLE} services
add rule ip {TABLE} services ip daddr . meta l4proto . th dport vmap @service-ips
add rule ip {TABLE} services fib daddr type local ip daddr != 127.0.0.0/8 \\
  meta l4proto . th dport vmap @service-nodeports
add chain ip {TABLE} firewall-check
add rule ip {TABLE} firewall-check ip daddr . meta l4proto . th dport vmap @firewall-ips
add chain ip {TABLE} service-endpoints-check
add rule ip {TABLE} service-endpoints-check ip daddr . meta l4proto . th dport vmap @no-endpoint-services
add chain ip {TABLE} nodeport-endpoints-check
add rule ip {TABLE} nodeport-endpoints-check fib daddr type local ip daddr != 127.0.0.0/8 \\
  meta l4proto . th dport vmap @no-endpoint-nodeports
add chain ip {TABLE} cluster-ips-check
add rule ip {TABLE} cluster-ips-check ip daddr @cluster-ips reject
add chain ip {TABLE} filter-prerouting {{ type filter hook prerouting priority dstnat - 10 ; }}
add rule ip {TABLE} filter-prerouting ct state new jump firewall-check
add chain ip {TABLE} filter-input {{ type filter hook input priority -110 ; }}
add rule ip {TABLE} filter-input ct state new jump nodeport-endpoints-check
add rule ip {TABLE} filter-input ct state new jump service-endpoints-check
add chain ip {TABLE} filter-forward {{ type filter hook forward priority -110 ; }}
add rule ip {TABLE} filter-forward ct state new jump service-endpoints-check
add rule ip {TABLE} filter-forward ct state new jump cluster-ips-check
add chain ip {TABLE} filter-output {{ type filter hook output priority -110 ; }}
add rule ip {TABLE} filter-output ct state new jump service-endpoints-check
add rule ip {TABLE} filter-output ct state new jump firewall-check
add chain ip {TABLE} filter-output-post-dnat {{ type filter hook output priority -90 ; }}
add rule ip {TABLE} filter-output-post-dnat ct state new jump cluster-ips-check
add chain ip {TABLE} nat-prerouting {{ type nat hook prerouting priority dstnat ; }}
add rule ip {TABLE} nat-prerouting jump services
add chain ip {TABLE} nat-output {{ type nat hook output priority -100 ; }}
add rule ip {TABLE} nat-output jump services
add chain ip {TABLE} nat-postrouting {{ type nat hook postrouting priority srcnat ; }}
add chain ip {TABLE} masquerading
add rule ip {TABLE} masquerading mark and 0x4000 == 0 return
add rule ip {TABLE} masquerading mark set mark xor 0x4000
add rule ip {TABLE} masquerading masquerade fully-random
add rule ip {TABLE} nat-postrouting jump masquerading
"""


def service(number: int, addresses: list[str]) -> Iterator[str]:
    """Everything of one Service."""
    name = f"service-{number:08X}-default/svc-{number}/tcp/http"
    for address in addresses:
        yield f"add chain ip {TABLE} {_endpoint(number, address)}"
        yield f"add rule ip {TABLE} {_endpoint(number, address)} ip saddr {address} jump mark-for-masquerade"
        yield f"add rule ip {TABLE} {_endpoint(number, address)} meta l4proto tcp dnat to {address}:8080"
    yield f"add chain ip {TABLE} {name}"
    yield from _choice(number, addresses)
    ip = cluster_ip(number + 1)
    yield f"add element ip {TABLE} cluster-ips {{ {ip} }}"
    yield f"add element ip {TABLE} service-ips {{ {ip} . tcp . 80 : goto {name} }}"


def _endpoint(number: int, address: str) -> str:
    return f"endpoint-{number:08X}-default/svc-{number}/tcp/http__{address}/8080"


def _choice(number: int, addresses: list[str]) -> Iterator[str]:
    name = f"service-{number:08X}-default/svc-{number}/tcp/http"
    match = f"ip daddr {cluster_ip(number + 1)} tcp dport 80 ip saddr != 10.128.0.0/9"
    yield f"add rule ip {TABLE} {name} {match} jump mark-for-masquerade"
    targets = ", ".join(f"{at} : goto {_endpoint(number, address)}" for at, address in enumerate(addresses))
    yield f"add rule ip {TABLE} {name} numgen random mod {len(addresses)} vmap {{ {targets} }}"


def change(number: int, before: list[str], after: list[str]) -> str:
    """The transaction in which one endpoint becomes another."""
    name = f"service-{number:08X}-default/svc-{number}/tcp/http"
    lines = []
    for address in after:
        if address not in before:
            chain = _endpoint(number, address)
            lines += [
                f"add chain ip {TABLE} {chain}",
                f"flush chain ip {TABLE} {chain}",
                f"add rule ip {TABLE} {chain} ip saddr {address} jump mark-for-masquerade",
                f"add rule ip {TABLE} {chain} meta l4proto tcp dnat to {address}:8080",
            ]
    lines += [f"flush chain ip {TABLE} {name}", *_choice(number, after)]
    for address in before:
        if address not in after:
            lines += [f"{verb} chain ip {TABLE} {_endpoint(number, address)}" for verb in ("flush", "delete")]
    return "\n".join(lines) + "\n"


def load(services: int, endpoints: int, others: Mapping[int, list[str]], chunk: int = 250) -> None:
    """In transactions of `chunk` Services, which is faster than all in one.  `others`: endpoints of some Services."""
    write(SKELETON)
    for start in range(0, services, chunk):
        lines: list[str] = []
        for number in range(start, min(services, start + chunk)):
            lines += service(number, others.get(number) or [endpoint_ip(number, at) for at in range(endpoints)])
        write("\n".join(lines) + "\n")


def write(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text.encode(), check=True)
