"""What the proxy must know of the cluster before it begins: this node's addresses, the Service CIDRs."""

import asyncio
import ipaddress
import logging
from dataclasses import dataclass, replace

from svcplane.api.resources import NODES, SERVICE_CIDRS
from svcplane.api.status import StatusError
from svcplane.base.errors import TransportError
from svcplane.base.net import family_of
from svcplane.client.api import ApiClient
from svcplane.client.transport import Transport
from svcplane.kernel.addresses import local_addresses
from svcplane.proxy.model import NodeConfig

log = logging.getLogger(__name__)
TRIES, EVERY_S = 60, 1.0


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """`node_ips`: the primary one of each family first."""

    node_ips: list[str]
    service_cidrs: list[str]
    pod_cidrs: tuple[str, ...] = ()  # of this node, for detect-local mode NodeCIDR

    def with_service_cidrs(self, config: NodeConfig) -> NodeConfig:
        mine = tuple(cidr for cidr in self.service_cidrs if family_of(cidr) is config.family)
        return replace(config, service_cidrs=mine)


async def cluster_facts(transport: Transport, node_name: str) -> ClusterFacts:
    """Ask the API, for a while; a node without an object is known by its own interfaces."""
    client = ApiClient(transport, "svcplane-proxy")
    for attempt in range(TRIES):
        try:
            node = await client.get(NODES, "", node_name)
            found = node.get("status", {}).get("addresses", [])
            ips = [entry["address"] for entry in found if entry.get("type") == "InternalIP"]
            spec = node.get("spec", {})
            pod_cidrs = tuple(spec.get("podCIDRs") or filter(None, [spec.get("podCIDR")]))
            return ClusterFacts(await _or_own(ips), await _service_cidrs(client), pod_cidrs)
        except TransportError as error:
            log.warning("waiting for the API server: %s", error)
        except StatusError as error:
            if error.code == 404:
                return ClusterFacts(await _or_own([]), await _service_cidrs(client))
            log.warning("waiting for node %s: %s", node_name, error)
        await asyncio.sleep(min(EVERY_S, 0.1 * (attempt + 1)))
    return ClusterFacts(await _or_own([]), [])


async def _or_own(ips: list[str]) -> list[str]:
    """The addresses the Node names, and for a family it names none of, the first of an interface."""
    found = list(ips)
    for family, addresses in (await local_addresses()).items():
        if any(family_of(ip) is family for ip in found):
            continue
        for address in addresses:
            parsed = ipaddress.ip_address(address)
            if not parsed.is_loopback and not parsed.is_link_local:
                found.append(address)
                break
    return found


async def _service_cidrs(client: ApiClient) -> list[str]:
    try:
        items = (await client.list(SERVICE_CIDRS))["items"]
    except (StatusError, TransportError) as error:
        log.info("the Service CIDRs are not known: %s", error)
        return []
    return [cidr for item in items for cidr in item.get("spec", {}).get("cidrs", [])]
