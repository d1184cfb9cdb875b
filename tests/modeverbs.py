"""What the verbs that look at a node must tell in every proxy mode, with real traffic on a lab."""

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

from labrig import LabRig
from svcplane.api.resources import PODS as PODS_RESOURCE
from svcplane.api.resources import SERVICES
from svcplane.lab.client import ask, ask_many
from svcplane.lab.topology import CLIENT_IP

PODS = ("web-1", "web-2")
Tree = dict[str, Any]


def objects() -> list[Tree]:
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1}
    container = {"name": "echo", "image": "svcplane/echo", "readinessProbe": probe}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec}
        for name in PODS
    ]
    services = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": {"app": "web"}, "ports": ports, "sessionAffinity": affinity},
        }
        for name, affinity in (("web", "None"), ("sticky", "ClientIP"))
    ]
    return [*services, *pods]


class Verbs:
    """The checks, on a lab that is up; `prepare` first."""

    def __init__(self, rig: LabRig, mode: str) -> None:
        self.rig, self.mode = rig, mode

    def prepare(self) -> None:
        self.rig.create(objects())
        ready = "svcplane wait pod/web-1 pod/web-2 --for=condition=Ready --timeout 100s"
        waits = [f"svcplane wait svc/{name} --programmed --timeout 100s" for name in ("web", "sticky")]
        for command in (ready, *waits):
            done = self.rig.run("client", command, timeout_s=110)
            assert done.returncode == 0, done.stdout + done.stderr
        self.rig.run("node1", "sysctl -w net.netfilter.nf_conntrack_acct=1")

    def told(self, command: str, member: str = "node1", status: int = 0) -> Any:
        done = self.rig.run(member, f"svcplane {command} -o json", timeout_s=90)
        assert done.returncode == status, done.stdout + done.stderr
        return json.loads(done.stdout)

    def address(self, name: str) -> str:
        found: str = self.rig.api(lambda api: api.get(SERVICES, "default", name))["spec"]["clusterIP"]
        return found

    @property
    def client(self) -> str:
        return self.rig.cluster.namespace("client")

    def trace_agrees_from_everywhere(self) -> None:
        node = self.rig.api(lambda api: api.get(PODS_RESOURCE, "default", "web-1"))["spec"]["nodeName"]
        for member, source in ((node, "pod/web-1"), ("node1", "node"), ("node1", CLIENT_IP)):
            probe = "" if source == CLIENT_IP else " --probe"
            found = self.told(f"trace svc/web:80 --from {source}{probe}", member)
            assert (found["trace"]["mode"], found["trace"]["agree"]) == (self.mode, True), found
            assert {share["pod"] for share in found["trace"]["shares"]} == {f"default/{name}" for name in PODS}
            assert abs(sum(share["probability"] for share in found["trace"]["shares"]) - 1) < 1e-9
            assert found["trace"]["way"], "the way through the live rules is told"
            assert found["trace"]["findings"] == []
            if probe:
                assert found["probe"]["result"] == "connected"
        wrong = self.told("trace svc/web:8081", status=1)["trace"]
        assert "which has no port 8081/TCP: it has 80/TCP" in wrong["why"]

    def affinity_is_listed_and_evicted(self) -> None:
        answered = asyncio.run(ask(self.client, self.address("sticky"), 80))
        assert answered in PODS
        found = [one for one in self.told("affinity list")["clients"] if one["client"] == CLIENT_IP]
        assert [(one["service"], one["pod"]) for one in found] == [("default/sticky:http", f"default/{answered}")]
        assert 10_000 < found[0]["expires_in_s"] <= 10_800
        stuck = self.told(f"trace svc/sticky:80 --from {CLIENT_IP}")["trace"]
        assert [share["pod"] for share in stuck["shares"]] == [f"default/{answered}"]
        evict = f"svcplane affinity evict {CLIENT_IP} --service default/sticky"
        gone = self.rig.run("node1", evict)
        if self.mode == "ipvs":  # the kernel has no call for it
            assert (gone.returncode, "IPVS cannot forget one client" in gone.stderr) == (1, True), gone.stderr
            return
        assert (gone.returncode, "which stuck to 10.244." in gone.stdout) == (0, True), gone.stdout + gone.stderr
        assert not [one for one in self.told("affinity list")["clients"] if one["client"] == CLIENT_IP]
        assert self.rig.run("node1", evict).returncode == 1

    def top_counts_connections_of_each_endpoint(self) -> None:
        address, over = self.address("web"), threading.Event()

        def traffic() -> None:
            while not over.is_set():
                asyncio.run(ask_many(self.client, address, 80, 10))

        while_looking(traffic, over, self._top)

    def _top(self) -> None:
        found = [row for row in self.told("top --once --interval 2") if row["service"] == "default/web:http"]
        total, parts = found[0], found[1:]
        assert total["endpoint"] == ""
        assert total["new_per_s"] > 0
        assert {row["pod"] for row in parts} == {f"default/{name}" for name in PODS}
        assert abs(total["new_per_s"] - sum(row["new_per_s"] for row in parts)) < 0.1
        assert total["sent_per_s"] > 0
        assert total["received_per_s"] > 0

    def nothing_drifts(self) -> None:
        assert self.told("plan --drift")["operations"] == []

    def doctor_finds_nothing_wrong(self) -> None:
        found = self.told("doctor")
        assert found["mode"] == self.mode
        assert [one for one in found["findings"] if one["severity"] != "note"] == []

    def history_tells_what_was_done_and_why(self) -> None:
        entries = [one for one in self.told("history svc/web") if "default/web" in one["services"]]
        assert entries, self.told("history")
        done = [operation for entry in entries for operation in entry["operations"]]
        assert done
        assert all(operation["object"] and operation["reason"] for operation in done)
        (desired,) = self.told("history svc/web --at 0s")
        assert {endpoint["pod"] for endpoint in desired["endpoints"]} == {f"default/{name}" for name in PODS}


def while_looking(work: Callable[[], None], over: threading.Event, look: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        look()
    finally:
        over.set()
        thread.join()


class VerbTests:
    """The verbs of one mode, for a module that has the fixture `verbs`."""

    def test_trace_agrees_from_a_pod_a_node_and_outside(self, verbs: Verbs) -> None:
        verbs.trace_agrees_from_everywhere()

    def test_affinity_is_listed_and_evicted(self, verbs: Verbs) -> None:
        verbs.affinity_is_listed_and_evicted()

    def test_top_counts_connections_of_each_endpoint(self, verbs: Verbs) -> None:
        verbs.top_counts_connections_of_each_endpoint()

    def test_nothing_drifts(self, verbs: Verbs) -> None:
        verbs.nothing_drifts()

    def test_doctor_finds_nothing_wrong(self, verbs: Verbs) -> None:
        verbs.doctor_finds_nothing_wrong()

    def test_history_tells_what_was_done_and_why(self, verbs: Verbs) -> None:
        verbs.history_tells_what_was_done_and_why()
