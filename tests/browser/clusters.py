"""Clusters to look at: a small one with troubles of several kinds, and one of a thousand Services."""

from collections.abc import Iterator
from typing import Any

Tree = dict[str, Any]


def node(name: str, index: int, zone: str = "a") -> Tree:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
        "spec": {"podCIDR": f"10.244.{index}.0/24", "podCIDRs": [f"10.244.{index}.0/24"]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": f"192.168.0.{index}"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def service(name: str, selector: dict[str, str] | None, namespace: str = "default", **spec: Any) -> Tree:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    spec = {"ports": ports} | ({"selector": selector} if selector else {}) | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def pod(name: str, app: str, where: str, ip: str, *, ready: bool = True, namespace: str = "default") -> Tree:
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 5}
    container = {"name": "web", "image": "any", "ports": [{"containerPort": 8080}], "readinessProbe": probe}
    status = "True" if ready else "False"
    conditions = [{"type": kind, "status": status} for kind in ("Ready", "ContainersReady")]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": app}},
        "spec": {"nodeName": where, "containers": [container]},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": conditions,
            "containerStatuses": [
                {
                    "name": "web",
                    "ready": ready,
                    "restartCount": 0,
                    "image": "any",
                    "imageID": "",
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                }
            ],
        },
    }


def slice_of(name: str, pods: list[Tree], namespace: str = "default") -> Tree:
    endpoints = [
        {
            "addresses": [one["status"]["podIP"]],
            "nodeName": one["spec"]["nodeName"],
            "conditions": {"ready": one["status"]["conditions"][0]["status"] == "True"},
            "targetRef": {"kind": "Pod", "name": one["metadata"]["name"], "namespace": namespace},
        }
        for one in pods
    ]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-1",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    }


def small() -> Iterator[Tree]:
    """Twelve Services on three nodes; `cart` has a Pod that is not ready, `search` a selector that is misspelt."""
    nodes = [node(f"node{index}", index, zone) for index, zone in ((1, "a"), (2, "a"), (3, "b"))]
    yield from nodes
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    names = ("web", "cart", "search", "orders", "users", "mail", "stock", "prices", "images", "audit", "reports")
    serial = 10
    for index, name in enumerate(names):
        namespace = "shop" if index % 2 else "default"
        selector = {"app": "serach" if name == "search" else name}
        more = {"type": "NodePort"} if name == "web" else {}
        if name == "orders":
            more = {"sessionAffinity": "ClientIP"}
        yield service(name, selector, namespace, **more)
        pods = []
        for number in range(2 + index % 3):
            serial += 1
            where = nodes[(index + number) % 3]["metadata"]["name"]
            ip = f"10.244.{(index + number) % 3 + 1}.{serial}"
            ready = not (name == "cart" and number == 1)
            pods.append(pod(f"{name}-{number}", name, where, ip, ready=ready, namespace=namespace))
        yield from pods
        yield slice_of(name, [] if name == "search" else pods, namespace)
    yield service("outside", None, type="ExternalName", externalName="db.example.com")


def event(name: str, namespace: str, kind: str, about: str, reason: str, message: str) -> Tree:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {"kind": kind, "name": about, "namespace": namespace, "apiVersion": "v1"},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "count": 3,
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "source": {"component": "svcplane-node"},
    }


def thousand() -> Iterator[Tree]:
    """1,000 Services of three Pods each on 20 nodes, every 50th with no ready Pod."""
    nodes = [node(f"node{index}", index) for index in range(1, 21)]
    yield from nodes
    for index in range(1000):
        name = f"svc-{index:04}"
        yield service(name, {"app": name})
        pods = []
        for number in range(3):
            at = (index + number) % 20 + 1
            ip = f"10.244.{at}.{(index // 20 * 3 + number) % 250 + 1}"
            pods.append(pod(f"{name}-{number}", name, f"node{at}", ip, ready=index % 50 != 0))
        yield from pods
        yield slice_of(name, pods)
