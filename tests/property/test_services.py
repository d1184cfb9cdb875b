"""The laws of the Service registry, over Services generated from the schema.

Whatever is sent: no 5xx; what is written is read back as it was answered and is valid by its own rules; numbers are
neither given twice nor leaked.
"""

import asyncio
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from svcplane.api import codec
from svcplane.api.resources import IP_ADDRESSES, SERVICES
from svcplane.api.schema import Field, Type, fields_of
from svcplane.base.clock import SYSTEM_CLOCK
from svcplane.server.allocation import node_ports
from svcplane.server.app import ApiServer
from svcplane.server.events import Events
from svcplane.server.in_use import PORT_PREFIX
from svcplane.server.repair import Repair
from svcplane.store.memory import MemoryStore
from svcplane.testing.server import Caller, in_process_server

PATH = "/api/v1/namespaces/default/services"
LAWS = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
NAMES = ["a", "b"]
IPS = ["10.96.0.20", "10.96.0.21", "10.96.77.1", "fd00:10:96::20", "fd00:10:96::21"]
#: Values by which the rules tell fields apart; others than these come too, but rarely.
LIKELY: dict[str, list[Any]] = {
    "ServiceSpec.type": ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"],
    "ServiceSpec.clusterIP": ["", "None", *IPS],
    "ServiceSpec.clusterIPs": ["None", *IPS],
    "ServiceSpec.ipFamilies": ["IPv4", "IPv6"],
    "ServiceSpec.ipFamilyPolicy": ["SingleStack", "PreferDualStack", "RequireDualStack"],
    "ServiceSpec.externalIPs": ["192.0.2.1", "2001:db8::1"],
    "ServiceSpec.externalName": ["example.com", ""],
    "ServiceSpec.externalTrafficPolicy": ["Cluster", "Local"],
    "ServiceSpec.internalTrafficPolicy": ["Cluster", "Local"],
    "ServiceSpec.healthCheckNodePort": [0, 30010, 30011],
    "ServiceSpec.loadBalancerClass": ["example.com/lb"],
    "ServiceSpec.loadBalancerIP": ["192.0.2.9"],
    "ServiceSpec.loadBalancerSourceRanges": ["10.0.0.0/8", "2001:db8::/32"],
    "ServiceSpec.selector": ["web"],
    "ServiceSpec.sessionAffinity": ["None", "ClientIP"],
    "ServiceSpec.trafficDistribution": ["PreferClose", "PreferSameZone", "PreferSameNode"],
    "ClientIPConfig.timeoutSeconds": [1, 10800, 86400],
    "ServicePort.name": ["http", "dns", ""],
    "ServicePort.port": [53, 80, 443],
    "ServicePort.protocol": ["TCP", "UDP", "SCTP"],
    "ServicePort.nodePort": [0, 30001, 30002, 30010],
    "ServicePort.targetPort": [0, 8080, "http"],
    "ServicePort.appProtocol": ["kubernetes.io/h2c"],
}
ODD: dict[str, list[Any]] = {
    "string": ["", "x y", "10.96.0.300", "é", "a" * 300],
    "int": [-1, 0, 65536, 1 << 31],
    "bool": [True, False],
    "intstr": [-1, "", "!"],
}


def values(type_: Type, place: str) -> st.SearchStrategy[Any]:
    """Mostly what is likely there, at times anything of the type."""
    if type_.shape == "struct":
        return struct(type_.name)
    if type_.shape == "list" and type_.item is not None:
        return st.lists(values(type_.item, place), max_size=3)
    if type_.shape == "map" and type_.item is not None:
        return st.dictionaries(st.sampled_from(["app", "tier"]), values(type_.item, place), max_size=2)
    odd, likely = ODD[type_.name], LIKELY.get(place, [])
    usual = st.sampled_from(likely or odd)
    return st.integers(0, 19).flatmap(lambda n: st.sampled_from(odd) if n == 0 else usual)


def struct(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Each field there or not; required ones always."""

    def strategy(field: Field) -> st.SearchStrategy[Any]:
        return values(field.type, f"{name}.{field.name}")

    fields = fields_of(name)
    must = {key: strategy(field) for key, field in fields.items() if field.required}
    may = {key: strategy(field) for key, field in fields.items() if not field.required}
    picked = st.sets(st.sampled_from(sorted(may)), max_size=5)
    return picked.flatmap(lambda keys: st.fixed_dictionaries({**must, **{key: may[key] for key in sorted(keys)}}))


EXTERNAL = ("NodePort", "LoadBalancer")
#: Fields that only some types may have.
ONLY = {
    "allocateLoadBalancerNodePorts": ("LoadBalancer",),
    "externalName": ("ExternalName",),
    "externalTrafficPolicy": EXTERNAL,
    "healthCheckNodePort": ("LoadBalancer",),
    "loadBalancerClass": ("LoadBalancer",),
    "loadBalancerSourceRanges": ("LoadBalancer",),
    "clusterIP": ("ClusterIP", *EXTERNAL),
    "clusterIPs": ("ClusterIP", *EXTERNAL),
}


def service(spec: dict[str, Any], type_: str, ports: list[dict[str, Any]], tidy: int) -> dict[str, Any]:
    """Three in four fit their type in the coarse; without them little else would be reached."""
    if not tidy:
        return {"type": type_, **spec}
    named = [{**port, "name": f"p{index}"} for index, port in enumerate(ports)]
    if type_ not in EXTERNAL:
        named = [{key: value for key, value in port.items() if key != "nodePort"} for port in named]
    kept = {key: value for key, value in spec.items() if type_ in ONLY.get(key, (type_,))}
    if kept.get("clusterIPs"):
        kept["clusterIP"] = kept["clusterIPs"][0]
    if type_ == "ExternalName":
        kept["externalName"] = "example.com"
    return {**kept, "type": type_, "ports": named}


types = st.sampled_from(LIKELY["ServiceSpec.type"])
one_or_two = st.lists(struct("ServicePort"), min_size=1, max_size=2)
specs = st.builds(service, struct("ServiceSpec"), types, one_or_two, st.integers(0, 3))
steps = st.lists(
    st.tuples(st.sampled_from(["create", "create", "put", "merge", "delete", "dry"]), st.sampled_from(NAMES), specs),
    min_size=4,
    max_size=12,
)


class World:
    """A server and the laws that each answer must keep."""

    def __init__(self, server: ApiServer, store: MemoryStore) -> None:
        self.store, self.admin = store, Caller(server.handle)
        allocation = server._allocation
        assert allocation is not None
        self.repair = Repair(store, allocation, Events(server.handle, SYSTEM_CLOCK), SYSTEM_CLOCK)

    async def step(self, verb: str, name: str, spec: dict[str, Any]) -> None:
        body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
        merge = {"Content-Type": "application/merge-patch+json"}
        before = await self.store.revision()
        match verb:
            case "create":
                status, found = await self.admin.call("POST", PATH, body)
            case "dry":
                status, found = await self.admin.call("POST", f"{PATH}?dryRun=All", body)
            case "put":
                status, found = await self.admin.call("PUT", f"{PATH}/{name}", body)
            case "merge":
                status, found = await self.admin.call("PATCH", f"{PATH}/{name}", {"spec": spec}, merge)
            case _:
                status, found = await self.admin.call("DELETE", f"{PATH}/{name}")
        told = json.dumps(found)
        assert status < 500, told
        if status >= 400 or verb == "dry":
            assert await self.store.revision() == before, f"a write that failed left something: {told}"
            assert status < 400 or (found["kind"], found["code"]) == ("Status", status)
        elif verb != "delete":
            await self.check_written(name, found)
        await self.check_numbers()

    async def check_written(self, name: str, answered: dict[str, Any]) -> None:
        """It reads as it was answered, and is valid as it is: sent back, it changes nothing."""
        _, read = await self.admin.call("GET", f"{PATH}/{name}")
        assert read == answered
        status, again = await self.admin.call("PUT", f"{PATH}/{name}", read)
        assert status == 200, json.dumps(again)
        assert again == read

    async def check_numbers(self) -> None:
        services = [codec.load(i.value, 0, SERVICES) for i in (await self.store.list(SERVICES.key_prefix())).items]
        ips = [ip for s in services for ip in s["spec"].get("clusterIPs", []) if ip != "None"]
        ports = [port for s in services for port in node_ports(s["spec"])]
        recorded = [i.key.rpartition("/")[2] for i in (await self.store.list(IP_ADDRESSES.key_prefix())).items]
        given_ports = [int(i.key.removeprefix(PORT_PREFIX)) for i in (await self.store.list(PORT_PREFIX)).items]
        assert sorted(ips) == sorted(recorded)
        assert sorted(ports) == sorted(given_ports)


async def run(plan: list[tuple[str, str, dict[str, Any]]]) -> None:
    store = MemoryStore()
    async with in_process_server(store=store) as server:
        world = World(server, store)
        for verb, name, spec in plan:
            await world.step(verb, name, spec)
        assert await world.repair.check_all() == 0
    await store.close()


@LAWS
@given(plan=steps)
def test_services_keep_the_laws_through_any_writes(plan: list[tuple[str, str, dict[str, Any]]]) -> None:
    asyncio.run(run(plan))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["metadata", "spec", "ports", "name", "clusterIPs", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@LAWS
@given(bodies=st.lists(JSON, min_size=1, max_size=6), verb=st.sampled_from(["POST", "PUT", "PATCH"]))
def test_anything_at_all_gets_a_clear_answer(bodies: list[Any], verb: str) -> None:
    async def send() -> None:
        async with in_process_server() as server:
            admin = Caller(server.handle)
            await admin.call("POST", PATH, {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}})
            for body in bodies:
                for media in ("application/json", "application/merge-patch+json", "application/json-patch+json"):
                    path = PATH if verb == "POST" else f"{PATH}/a"
                    status, found = await admin.call(verb, path, body, {"Content-Type": media})
                    assert status < 500, json.dumps(found)

    asyncio.run(send())
