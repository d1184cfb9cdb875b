"""The proxy's flags in every form that kube-proxy's users write them in."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from svcplane.cli.proxy import proxy


def written(tmp_path: Path, *flags: str) -> dict[str, object]:
    file = tmp_path / "made.yaml"
    done = CliRunner().invoke(proxy, ["--write-config-to", str(file), *flags], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    tree: dict[str, object] = yaml.safe_load(file.read_text())
    return tree


@pytest.mark.parametrize("level", ["-v=4", "-v4", "--v=4", "--cleanup=false", "--init-only=false", "--masquerade-all"])
def test_values_may_follow_an_equals_sign(tmp_path: Path, level: str) -> None:
    assert written(tmp_path, level, "--cluster-cidr=10.9.0.0/16")["clusterCIDR"] == "10.9.0.0/16"


def test_underscores_are_dashes(tmp_path: Path) -> None:
    assert written(tmp_path, "--cluster_cidr", "10.9.0.0/16")["clusterCIDR"] == "10.9.0.0/16"


def test_lists_and_gates_add_up(tmp_path: Path) -> None:
    tree = written(
        tmp_path,
        "--nodeport-addresses=10.0.0.0/8",
        "--nodeport-addresses=11.0.0.0/8,12.0.0.0/8",
        "--feature-gates=A=true",
        "--feature-gates=B=false",
    )
    assert tree["nodePortAddresses"] == ["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"]
    assert tree["featureGates"] == {"A": True, "B": False}


@pytest.mark.parametrize("flag", ["-v=high", "--cleanup=perhaps"])
def test_a_value_that_is_none_is_refused(flag: str) -> None:
    done = CliRunner().invoke(proxy, [flag])
    assert done.exit_code == 2
    assert flag.split("=")[1] in done.output
