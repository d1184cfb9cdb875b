"""The agent with real namespaces and processes against an API of a few lines."""

import asyncio
from pathlib import Path

import pytest

from podrig import CIDR, PREFIX, Bench, echo, pod, shell
from svcplane.kernel.links.run import KernelLinks, pids_in

pytestmark = [
    pytest.mark.root,
    pytest.mark.tools("ip"),
]


async def test_echo_pod_becomes_ready_with_address_and_goes_when_deleted(bench: Bench) -> None:
    api = bench.api
    api.put(pod("web", echo(readinessProbe={"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1})))
    await api.until(lambda: api.ready("web"))
    status = api.status("web")
    assert status["phase"] == "Running"
    assert status["podIPs"] == [{"ip": CIDR.replace(".0/24", ".2")}]
    assert status["hostIP"] == "192.0.2.1"
    assert api.container("web")["containerID"].startswith("svcplane://")
    assert {c["type"]: c["status"] for c in status["conditions"]} == dict.fromkeys(
        ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"), "True"
    )
    (namespace,) = KernelLinks().namespaces(PREFIX)
    await bench.delete("web")
    assert not pids_in(namespace)
    assert not KernelLinks().namespaces(PREFIX)
    async with asyncio.timeout(10):
        while list((bench.state / "pods").iterdir()):
            await asyncio.sleep(0.01)


async def test_probe_that_fails_makes_the_pod_unready_until_it_succeeds_again(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    api = bench.api
    probe = {"exec": {"command": ["test", "-e", str(gate)]}, "periodSeconds": 1, "failureThreshold": 1}
    api.put(pod("web", echo(readinessProbe=probe)))
    await api.until(lambda: api.ready("web"))
    gate.unlink()
    await api.until(lambda: not api.ready("web"))
    assert api.container("web")["state"].keys() == {"running"}
    gate.touch()
    await api.until(lambda: api.ready("web"))
    assert api.container("web")["restartCount"] == 0


async def test_liveness_failure_restarts_the_container(bench: Bench) -> None:
    api = bench.api
    probe = {"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 1}
    api.put(pod("web", echo(livenessProbe=probe)))
    await api.until(lambda: api.container("web").get("restartCount", 0) >= 1)
    assert any(reason == "Unhealthy" and "Liveness probe failed" in text for reason, text in api.events)


@pytest.mark.tools("etcd")
async def test_grpc_probe_asks_a_real_server_for_its_health(bench: Bench, tmp_path: Path) -> None:
    api, ip = bench.api, CIDR.replace(".0/24", ".2")
    etcd = f"exec etcd --data-dir {tmp_path / 'etcd'} --listen-client-urls http://{ip}:2379 --log-level error "
    etcd += f"--advertise-client-urls http://{ip}:2379"
    probe = {"grpc": {"port": 2379, "service": ""}, "periodSeconds": 1, "timeoutSeconds": 5}
    api.put(pod("web", shell(etcd, readinessProbe=probe)))
    await api.until(lambda: api.ready("web"))
    unknown = {"grpc": {"port": 2379, "service": "no.such.Service"}, "periodSeconds": 1, "timeoutSeconds": 5}
    other = shell(etcd.replace(ip, CIDR.replace(".0/24", ".3")).replace("/etcd ", "/etcd2 "), readinessProbe=unknown)
    api.put(pod("other", other))
    async with asyncio.timeout(20):
        while not any("no health status" in text for reason, text in api.events if reason == "Unhealthy"):
            await asyncio.sleep(0.05)
    assert not api.ready("other")


async def test_container_is_not_ready_before_its_post_start_hook_has_ended(bench: Bench, tmp_path: Path) -> None:
    api, gate = bench.api, tmp_path / "gate"
    hook = {"postStart": {"exec": {"command": ["sh", "-c", f"until [ -e {gate} ]; do sleep 0.05; done"]}}}
    api.put(pod("web", echo(lifecycle=hook)))
    await api.until(lambda: "running" in api.container("web").get("state", {}))
    assert not api.ready("web")
    assert api.container("web")["started"] is False
    gate.touch()
    await api.until(lambda: api.ready("web"))


async def test_container_whose_post_start_hook_fails_is_ended_and_started_again(bench: Bench) -> None:
    api = bench.api
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "echo no; exit 4"]}}}
    api.put(pod("web", echo(lifecycle=hook)))
    await api.until(lambda: api.container("web").get("restartCount", 0) >= 1)
    assert ("FailedPostStartHook", "PostStartHook failed: exit code 4: no") in api.events


async def test_crashing_container_is_restarted_at_once_and_then_backs_off(bench: Bench) -> None:
    api = bench.api
    api.put(pod("web", shell("exit 3")))
    await api.until(
        lambda: api.container("web").get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"
    )
    container = api.container("web")
    assert container["restartCount"] == 1
    assert container["lastState"]["terminated"]["exitCode"] == 3
    assert container["state"]["waiting"]["message"].startswith("back-off 10s restarting failed container=main pod=web_")


async def test_init_containers_run_in_order_and_sidecars_stay(bench: Bench) -> None:
    api = bench.api
    inits = [
        shell("echo one; sleep 0.2", "one"),
        shell("exec sleep 1000", "side", restartPolicy="Always"),
        shell("echo two", "two"),
    ]
    api.put(pod("web", shell("echo main; exec sleep 1000"), initContainers=inits))
    await api.until(lambda: api.ready("web"))
    states = [status["state"] for status in api.status("web")["initContainerStatuses"]]
    assert [next(iter(state)) for state in states] == ["terminated", "running", "terminated"]
    assert api.status("web")["initContainerStatuses"][1]["started"] is True
    async with asyncio.timeout(10):
        while bench.log("web") != "main\n":
            await asyncio.sleep(0.01)


async def test_pod_that_never_restarts_ends_succeeded_and_gives_back_its_address(bench: Bench) -> None:
    api = bench.api
    api.put(pod("job", shell("exit 0"), restartPolicy="Never"))
    await api.until(lambda: api.status("job").get("phase") == "Succeeded")
    assert api.container("job")["state"]["terminated"]["reason"] == "Completed"
    assert api.condition("job", "Ready") == "False"
    async with asyncio.timeout(10):
        while KernelLinks().namespaces(PREFIX):
            await asyncio.sleep(0.01)
    assert api.status("job")["podIP"]


async def test_container_without_command_says_what_to_do(bench: Bench) -> None:
    api = bench.api
    api.put(pod("web", {"name": "main", "image": "nginx"}))
    await api.until(
        lambda: api.container("web").get("state", {}).get("waiting", {}).get("reason") == "CreateContainerConfigError"
    )
    assert "svcplane runs processes, not images: set command" in api.container("web")["state"]["waiting"]["message"]


async def test_process_that_ignores_term_is_killed_when_its_grace_is_over(bench: Bench) -> None:
    api = bench.api
    api.put(pod("web", shell("trap '' TERM; while :; do sleep 0.1; done")))
    await api.until(lambda: api.ready("web"))
    await bench.delete("web", grace_s=1)


async def test_environment_arguments_and_fields_reach_the_process(bench: Bench) -> None:
    env = [
        {"name": "A", "value": "x"},
        {"name": "B", "value": "$(A)y $(NONE) $$(A)"},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    container = {"name": "main", "command": ["sh", "-c", 'echo "$B|$IP|$1|$(pwd)"', "sh"], "args": ["$(A)$(A)"]}
    bench.api.put(pod("web", container | {"env": env, "workingDir": "/tmp"}, restartPolicy="Never"))
    await bench.api.until(lambda: bench.api.status("web").get("phase") == "Succeeded")
    assert bench.log("web") == f"xy $(NONE) $(A)|{CIDR.replace('.0/24', '.2')}|xx|/tmp\n"


async def test_agent_that_comes_back_adopts_its_pods_without_a_restart(bench: Bench) -> None:
    api = bench.api
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    api.put(pod("web", echo(readinessProbe=probe)))
    await api.until(lambda: api.ready("web"))
    before = (api.container("web"), api.status("web")["podIP"])
    await bench.agent.close(stop_pods=False)
    api.agent = None
    assert KernelLinks().namespaces(PREFIX)
    changes = api.version
    await bench.start()
    await asyncio.sleep(1.5)
    assert (api.container("web"), api.status("web")["podIP"]) == before
    assert api.version == changes, "the status must not flap when the agent returns"


async def test_pod_deleted_while_the_agent_was_away_is_ended_when_it_returns(bench: Bench) -> None:
    api = bench.api
    api.put(pod("web", echo()))
    await api.until(lambda: api.ready("web"))
    await bench.agent.close(stop_pods=False)
    api.agent = None
    api.remove("web")
    await bench.start()
    assert not KernelLinks().namespaces(PREFIX)


async def test_logs_of_a_stopped_pod_go_with_the_pod_though_nobody_looked(bench: Bench) -> None:
    api = bench.api
    api.put(pod("web", echo()))
    await api.until(lambda: api.ready("web"))
    await bench.agent.close(stop_pods=True)
    api.agent = None
    assert list((bench.state / "pods").iterdir())
    api.remove("web")
    await bench.start()
    assert not list((bench.state / "pods").iterdir())


async def test_stopped_node_runs_its_pods_again_with_a_higher_restart_count(bench: Bench) -> None:
    api = bench.api
    api.put(pod("web", echo()))
    await api.until(lambda: api.ready("web"))
    await bench.agent.close(stop_pods=True)
    api.agent = None
    assert not KernelLinks().namespaces(PREFIX)
    assert not api.ready("web")  # nobody takes it for one that answers
    assert api.container("web")["state"].keys() == {"terminated"}
    await bench.start()
    await api.until(lambda: api.container("web").get("restartCount") == 1 and api.ready("web"))
