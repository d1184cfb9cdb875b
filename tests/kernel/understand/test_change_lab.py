"""`svcplane plan`, `affinity` and `top` on the nodes of a lab, with real traffic."""

import json
from pathlib import Path

import pytest
import yaml

from labrig import LabRig
from svcplane.api.resources import SERVICES

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.tools("ip", "nsenter", "nft", "conntrack"),
    pytest.mark.xdist_group("lab"),
]


def test_a_plan_tells_fields_endpoints_and_kernel_operations_and_changes_nothing(lab: LabRig, tmp_path: Path) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "hello"},
        "spec": {"selector": {"app": "nobody"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    }
    fresh = {**service, "metadata": {"name": "fresh"}}
    wrong = {**service, "metadata": {"name": "Wrong"}}
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump_all([service, fresh]))
    done = lab.run("node1", f"svcplane plan -f {file}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "change    Service hello" in done.stdout
    assert 'spec.selector.app: "hello" -> "nobody"' in done.stdout
    assert "create    Service fresh" in done.stdout
    assert done.stdout.count("-10.244.") == 3
    assert "Kernel operations on this node" in done.stdout
    assert "service-ips" in done.stdout
    assert lab.run("node1", "svcplane explain svc/hello").returncode == 0
    assert "there is no Service fresh" in lab.run("node1", "svcplane explain svc/fresh").stderr
    file.write_text(yaml.safe_dump(wrong))
    refused = lab.run("node1", f"svcplane plan -f {file}")
    assert (refused.returncode, "refused   Service Wrong" in refused.stdout) == (1, True)


def test_drift_is_found_and_gone_after_the_repair(lab: LabRig) -> None:
    done = lab.run("node2", "svcplane plan --drift")
    assert done.returncode == 0, done.stdout + done.stderr
    done = lab.run("control", "svcplane plan --drift --node node2 --cluster-cidr 10.244.0.0/16")
    assert done.returncode == 1
    assert "The kernel differs: a repair would" in done.stdout
    assert lab.run("node1", "svcplane plan").returncode == 2


def test_a_client_sticks_is_listed_and_evicted(lab: LabRig) -> None:
    patch = {"spec": {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}}}}
    lab.api(lambda api: api.patch(SERVICES, "default", "sticky", patch))
    assert lab.run("client", "svcplane wait svc/sticky --programmed").returncode == 0
    assert lab.run("node1", "svcplane trace svc/sticky:80 --from pod/hello-1 --probe").returncode == 0
    found = json.loads(lab.run("node1", "svcplane affinity list -o json").stdout)["clients"]
    assert [(one["service"], one["state"]) for one in found] == [("default/sticky:http", "ready")]
    client = found[0]["client"]
    assert 0 < found[0]["expires_in_s"] <= 600
    other = lab.run("node1", f"svcplane affinity evict {client} --service default/hello")
    assert (other.returncode, "is not remembered" in other.stdout) == (1, True)
    gone = lab.run("node1", f"svcplane affinity evict {client} --service default/sticky")
    assert (gone.returncode, "which stuck to 10.244." in gone.stdout) == (0, True)
    assert "no client is remembered" in lab.run("node1", "svcplane affinity list").stdout


def test_top_counts_connections_and_bytes(lab: LabRig) -> None:
    lab.run("node1", "sysctl -w net.netfilter.nf_conntrack_acct=1")
    for _ in range(3):
        assert lab.run("node1", "svcplane trace svc/hello:80 --from pod/hello-1 --probe").returncode == 0
    found = json.loads(lab.run("node1", "svcplane top --once --interval 0.3 -o json").stdout)
    total = next(row for row in found if row["service"] == "default/hello:http" and not row["endpoint"])
    assert total["new_per_s"] == 0
    assert total["sent_per_s"] is not None
    assert {row["pod"] for row in found if row["endpoint"]} <= {f"default/hello-{n}" for n in (1, 2, 3)}
    shown = lab.run("node1", "svcplane top --once --interval 0.2")
    assert "default/hello:http" in shown.stdout
