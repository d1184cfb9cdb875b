"""The proxy's flags in every form that kube-proxy's users write them in."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from svcplane import __version__
from svcplane.cli.proxy import proxy
from svcplane.proxy.parameters import Parameters


def written(tmp_path: Path, *flags: str) -> dict[str, object]:
    file = tmp_path / "made.yaml"
    done = CliRunner().invoke(proxy, ["--write-config-to", str(file), *flags], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    tree: dict[str, object] = yaml.safe_load(file.read_text())
    return tree


@pytest.mark.parametrize("level", ["-v=4", "-v4", "--v=4", "--cleanup=false", "--init-only=false", "--masquerade-all"])
def test_values_may_follow_an_equals_sign(tmp_path: Path, level: str) -> None:
    assert written(tmp_path, level, "--cluster-cidr=10.9.0.0/16")["clusterCIDR"] == "10.9.0.0/16"


def test_the_version_is_told_as_kube_proxy_tells_its_own() -> None:
    done = CliRunner().invoke(proxy, ["--version"])
    assert (done.exit_code, done.output) == (0, f"svcplane, version {__version__}\n")


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


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--proxy-mode=ipvs", "--ipvs-strict-arp"], {"vs/conntrack": "1", "ip_forward": "1", "arp_ignore": "1"}),
        (["--proxy-mode=ipvs"], {"vs/conntrack": "1", "ip_forward": "1", "arp_ignore": "0"}),
        (["--proxy-mode=nftables"], {"vs/conntrack": "0", "ip_forward": "0", "arp_ignore": "0"}),
    ],
)
def test_init_only_sets_what_the_mode_would_need_privilege_for(
    flags: list[str], wanted: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"vs/conntrack": "vs/conntrack", "ip_forward": "ip_forward", "arp_ignore": "conf/all/arp_ignore"}
    files = {name: tmp_path / "proc/sys/net/ipv4" / place for name, place in places.items()}

    def load(module: str) -> bool:
        for name, file in files.items():
            if name != "vs/conntrack" or module == "ip_vs":
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("0")
        return True

    load("nf_conntrack")
    if "--proxy-mode=nftables" in flags:
        load("ip_vs")
    monkeypatch.setattr("svcplane.cli.proxy.load_module", load)
    monkeypatch.setattr("svcplane.cli.proxy.Parameters", lambda config, also: Parameters(config, tmp_path, also))
    done = CliRunner().invoke(proxy, ["--init-only", *flags], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert {name: file.read_text() for name, file in files.items()} == wanted
