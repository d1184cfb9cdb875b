"""Small pure pieces: commands, probes, addresses, status, logs, the scheduler's choice, the echo server."""

from typing import Any

import msgspec
import pytest

from svcplane.api.core import Container, Node, Pod, Probe, Service
from svcplane.node import echo, logs, probes
from svcplane.node.addresses import AddressBook, NoAddress, gateway, next_address
from svcplane.node.model import Exit, Health, Observed, Run
from svcplane.node.probes import Kind, Tally
from svcplane.node.scheduler.choose import choose, load_of
from svcplane.node.spec import CannotRun, built_in, environment, expand, process_of, service_variables
from svcplane.node.status import pod_status


def pod(**more: Any) -> Pod:
    spec = {"containers": [{"name": "a", "image": "i", "command": ["x"]}], **more.pop("spec", {})}
    return msgspec.convert({"metadata": {"name": "web", "namespace": "ns", "uid": "u"}, "spec": spec, **more}, Pod)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("$(A)", "1"), ("$$(A)", "$(A)"), ("$(NO)", "$(NO)"), ("$A $", "$A $"), ("$(A)$(A)", "11"), ("$$$(A)", "$1")],
)
def test_expansion_follows_kubernetes(text: str, wanted: str) -> None:
    assert expand(text, {"A": "1"}) == wanted


def test_environment_reads_fields_and_refuses_unknown_ones() -> None:
    def container(path: str) -> Container:
        env = [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}]
        return msgspec.convert({"name": "a", "env": env}, Container)

    made = pod()
    assert environment(made, container("metadata.namespace"), (), ()) == {"X": "ns"}
    assert environment(made, container("status.podIP"), ("10.0.0.1",), ()) == {"X": "10.0.0.1"}
    with pytest.raises(CannotRun, match=r"unsupported fieldPath: spec\.none"):
        environment(made, container("spec.none"), (), ())


def service(name: str, namespace: str, ip: str, *ports: dict[str, Any]) -> Service:
    tree = {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip, "ports": list(ports)}}
    return msgspec.convert(tree, Service)


SERVICES = (
    service("kubernetes", "default", "10.96.0.1", {"name": "https", "port": 443}),
    service("my-db", "ns", "10.96.0.9", {"name": "sql-a", "port": 5432}, {"name": "u", "port": 53, "protocol": "UDP"}),
    service("none", "ns", "None", {"port": 80}),
    service("other", "elsewhere", "10.96.0.8", {"port": 80}),
    service("six", "ns", "fd00::9", {"port": 80}),
)


def test_services_of_the_namespace_are_told_in_the_environment_as_the_kubelet_tells_them() -> None:
    assert service_variables(pod(), SERVICES) == {
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
        "KUBERNETES_SERVICE_PORT_HTTPS": "443",
        "KUBERNETES_PORT": "tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP_PROTO": "tcp",
        "KUBERNETES_PORT_443_TCP_PORT": "443",
        "KUBERNETES_PORT_443_TCP_ADDR": "10.96.0.1",
        "MY_DB_SERVICE_HOST": "10.96.0.9",
        "MY_DB_SERVICE_PORT": "5432",
        "MY_DB_SERVICE_PORT_SQL_A": "5432",
        "MY_DB_SERVICE_PORT_U": "53",
        "MY_DB_PORT": "tcp://10.96.0.9:5432",
        "MY_DB_PORT_5432_TCP": "tcp://10.96.0.9:5432",
        "MY_DB_PORT_5432_TCP_PROTO": "tcp",
        "MY_DB_PORT_5432_TCP_PORT": "5432",
        "MY_DB_PORT_5432_TCP_ADDR": "10.96.0.9",
        "MY_DB_PORT_53_UDP": "udp://10.96.0.9:53",
        "MY_DB_PORT_53_UDP_PROTO": "udp",
        "MY_DB_PORT_53_UDP_PORT": "53",
        "MY_DB_PORT_53_UDP_ADDR": "10.96.0.9",
        "SIX_SERVICE_HOST": "fd00::9",
        "SIX_SERVICE_PORT": "80",
        "SIX_PORT": "tcp://[fd00::9]:80",
        "SIX_PORT_80_TCP": "tcp://[fd00::9]:80",
        "SIX_PORT_80_TCP_PROTO": "tcp",
        "SIX_PORT_80_TCP_PORT": "80",
        "SIX_PORT_80_TCP_ADDR": "fd00::9",
    }


def test_without_service_links_only_the_api_server_is_told_and_own_variables_win() -> None:
    made = pod(spec={"enableServiceLinks": False})
    given = service_variables(made, SERVICES)
    assert {name.partition("_")[0] for name in given} == {"KUBERNETES"}
    env = [{"name": "KUBERNETES_PORT", "value": "mine"}, {"name": "URL", "value": "https://$(KUBERNETES_SERVICE_HOST)"}]
    known = environment(made, msgspec.convert({"name": "a", "env": env}, Container), (), (), given)
    assert (known["KUBERNETES_PORT"], known["URL"]) == ("mine", "https://10.96.0.1")


@pytest.mark.parametrize("optional", [True, False])
def test_environment_from_a_config_map_is_refused_unless_it_is_optional(optional: bool) -> None:
    tree = {"name": "a", "envFrom": [{"configMapRef": {"name": "x", "optional": optional}}]}
    container = msgspec.convert(tree, Container)
    if optional:
        assert environment(pod(), container, (), ()) == {}
    else:
        with pytest.raises(CannotRun, match="no ConfigMaps"):
            environment(pod(), container, (), ())


@pytest.mark.parametrize("image", ["svcplane/echo", "svcplane/echo:1.0", "docker.io/svcplane/echo:x"])
def test_echo_is_built_in_whatever_its_tag(image: str) -> None:
    assert built_in(image) == "svcplane.node.echo"


def test_image_without_command_cannot_run() -> None:
    container = msgspec.convert({"name": "a", "image": "nginx"}, Container)
    with pytest.raises(CannotRun, match="set command"):
        process_of(pod(), container, (), (), ("python",))


def test_probe_thresholds_count_results_in_a_row() -> None:
    probe, tally, verdicts = Probe(success_threshold=2, failure_threshold=3), Tally(), []
    for ok in (True, True, False, False, True, False, False, False):
        tally = probes.fold(tally, probe, ok)
        verdicts.append(tally.verdict)
    assert verdicts == [None, True, True, True, True, True, True, False]


def test_startup_probe_holds_back_the_others_and_readiness() -> None:
    container = Container(name="a", startup_probe=Probe(), readiness_probe=Probe())
    health = probes.health_at_start(container)
    assert health == Health(started=False, ready=False)
    assert [probes.due(kind, health, True) for kind in Kind] == [True, False, False]
    health = probes.verdict(health, container, Kind.STARTUP, Tally(True, 1, True), "")
    assert (health.started, health.ready) == (True, False)
    assert [probes.due(kind, health, True) for kind in Kind] == [False, True, True]


def test_liveness_failure_names_the_container_and_stops_probing() -> None:
    container = Container(name="a", liveness_probe=Probe())
    health = probes.verdict(Health(True, True), container, Kind.LIVENESS, Tally(False, 3, False), "")
    assert health.failed == "Container a failed liveness probe, will be restarted"
    assert not probes.due(Kind.LIVENESS, health, False)


def test_addresses_go_round_and_spare_network_gateway_and_broadcast() -> None:
    assert gateway("10.0.0.0/30") == "10.0.0.1"
    assert next_address("10.0.0.0/29", ()) == "10.0.0.2"
    assert next_address("10.0.0.0/29", (), "10.0.0.6") == "10.0.0.2"
    assert next_address("10.0.0.0/29", ("10.0.0.2", "10.0.0.3"), "10.0.0.6") == "10.0.0.4"
    with pytest.raises(NoAddress):
        next_address("10.0.0.0/30", ("10.0.0.2",))


def test_address_book_gives_a_pod_the_same_addresses_until_it_is_gone() -> None:
    book = AddressBook(("10.0.0.0/29", "fd00::/64"))
    first = book.take("a")
    assert first == book.take("a") == ("10.0.0.2", "fd00::2")
    book.free("a")
    assert book.take("b") == ("10.0.0.3", "fd00::3"), "an address just freed rests"


def status(made: Pod, observed: Observed, **more: Any) -> dict[str, Any]:
    waiting = more.pop("waiting", {})
    return pod_status(made, observed, now=1000.0, host_ips=("192.0.2.1",), waiting=waiting, **more)


def conditions(tree: dict[str, Any]) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in tree["conditions"]}


def test_status_of_a_pod_that_runs_and_is_ready() -> None:
    run = Run("r", "a", 0, 999.0)
    made = status(pod(), Observed(True, ("10.0.0.2",), {"a": run}, health={"r": Health(True, True)}))
    assert (made["phase"], made["podIP"], made["hostIP"]) == ("Running", "10.0.0.2", "192.0.2.1")
    assert set(conditions(made).values()) == {"True"}
    assert made["containerStatuses"][0]["state"] == {"running": {"startedAt": "1970-01-01T00:16:39Z"}}


def test_status_of_an_unready_container_names_it() -> None:
    made = status(pod(), Observed(True, (), {"a": Run("r", "a", 0, 999.0)}, health={"r": Health(True, False)}))
    (ready,) = [c for c in made["conditions"] if c["type"] == "Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "ContainersNotReady")
    assert ready["message"] == "containers with unready status: [a]"


def test_transition_time_stays_while_a_condition_does() -> None:
    old = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]
    made = status(pod(status={"conditions": old}), Observed())
    times = {c["type"]: c["lastTransitionTime"] for c in made["conditions"]}
    assert times["PodScheduled"] == "2020-01-01T00:00:00Z"
    assert times["Ready"] == "1970-01-01T00:16:40Z"


@pytest.mark.parametrize(("code", "phase", "reason"), [(0, "Succeeded", "Completed"), (3, "Failed", "Error")])
def test_phase_of_a_pod_that_ended_for_good(code: int, phase: str, reason: str) -> None:
    run = Run("r", "a", 0, 990.0, Exit(code, 0, 999.0))
    made = status(pod(spec={"restartPolicy": "Never"}), Observed(False, (), {"a": run}))
    assert made["phase"] == phase
    assert made["containerStatuses"][0]["state"]["terminated"]["reason"] == reason
    assert conditions(made)["Ready"] == "False"


def node(name: str, *, ready: bool = True, **spec: Any) -> Node:
    tree = {
        "metadata": {"name": name, "labels": {"disk": name}},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }
    return msgspec.convert(tree, Node)


def test_scheduler_takes_the_emptiest_node_that_fits() -> None:
    nodes = [node("a"), node("b"), node("c", unschedulable=True), node("d", ready=False)]
    assert choose(pod(), nodes, {"a": 1}).node == "b"
    assert choose(pod(), nodes, {}).node == "a"
    assert choose(pod(spec={"nodeSelector": {"disk": "a"}}), nodes, {"a": 5}).node == "a"


def test_scheduler_says_why_no_node_fits() -> None:
    nodes = [node("a", unschedulable=True), node("b", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])]
    reason = choose(pod(), nodes, {}).reason
    assert reason.startswith("0/2 nodes are available: 1 node(s) had untolerated taint {k: v}")
    assert choose(pod(), [], {}).reason == "no nodes available to schedule pods"


def test_finished_pods_are_no_load() -> None:
    pods = [pod(spec={"nodeName": "a"}), pod(spec={"nodeName": "a"}, status={"phase": "Succeeded"})]
    assert load_of(pods) == {"a": 1}


def test_log_lines_are_rendered_by_options() -> None:
    line = b"1970-01-01T00:00:10.000000000Z stdout F some text"
    assert logs.render(line, logs.Options()) == b"some text\n"
    assert logs.render(line, logs.Options(timestamps=True)) == b"1970-01-01T00:00:10.000000000Z some text\n"
    assert logs.render(line.replace(b" F ", b" P "), logs.Options()) == b"some text"
    assert logs.render(line, logs.Options(since=11.0)) is None


def test_echo_answers_http_and_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAME", "web-1")
    assert echo.answer(b"who\n") == b"web-1\n"
    assert echo.answer(b"wh") is None
    reply = echo.answer(b"GET /hostname HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reply is not None
    assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
    assert reply.endswith(b"\r\n\r\nweb-1\n")
    monkeypatch.setattr(echo, "healthy", True)
    echo.respond(b"/fail")
    assert echo.respond(b"/healthz")[0].startswith("503")
    echo.respond(b"/recover")
    assert echo.respond(b"/healthz")[0].startswith("200")
