"""Kernel parameters: which are wanted, and that only what differs is written."""

from pathlib import Path

import pytest

from svcplane.base.errors import KernelError
from svcplane.kernel.sysctl import Parameter, ensure
from svcplane.proxy.config.flags import configuration
from svcplane.proxy.sysctls import expected, wanted


def names(cpus: int = 2, **flags: str) -> dict[str, int]:
    given = {key.replace("_", "-"): value for key, value in flags.items()}
    return {parameter.name: parameter.value for parameter in wanted(configuration(given), cpus)}


def test_as_kube_proxy_has_them() -> None:
    assert names() == {
        "net.netfilter.nf_conntrack_max": 131072,
        "/sys/module/nf_conntrack/parameters/hashsize": 32768,
        "net.netfilter.nf_conntrack_tcp_timeout_established": 86400,
        "net.netfilter.nf_conntrack_tcp_timeout_close_wait": 3600,
    }


@pytest.mark.parametrize(("cpus", "limit"), [(1, 131072), (8, 262144), (256, 1048576)])
def test_room_grows_with_processors_to_an_end(cpus: int, limit: int) -> None:
    assert names(cpus)["net.netfilter.nf_conntrack_max"] == limit


def test_a_minimum_beyond_the_end_is_heard_where_processors_are_few() -> None:
    assert names(2, conntrack_min="2000000")["net.netfilter.nf_conntrack_max"] == 2_000_000
    assert names(256, conntrack_min="2000000")["net.netfilter.nf_conntrack_max"] == 1_048_576


def test_zero_leaves_as_is_and_wishes_are_heard() -> None:
    found = names(
        conntrack_max_per_core="0",
        conntrack_tcp_timeout_established="0s",
        conntrack_tcp_timeout_close_wait="0",
        conntrack_tcp_be_liberal="true",
        conntrack_udp_timeout="20s",
        conntrack_udp_timeout_stream="2m",
    )
    assert found == {
        "net.netfilter.nf_conntrack_tcp_be_liberal": 1,
        "net.netfilter.nf_conntrack_udp_timeout": 20,
        "net.netfilter.nf_conntrack_udp_timeout_stream": 120,
    }


@pytest.mark.parametrize(
    ("flags", "local"),
    [
        ({"proxy_mode": "iptables"}, True),
        ({"proxy_mode": "nftables"}, False),
        ({"proxy_mode": "iptables", "iptables_localhost_nodeports": "false"}, False),
        ({"proxy_mode": "iptables", "nodeport_addresses": "192.0.2.0/24"}, False),
        ({"proxy_mode": "iptables", "nodeport_addresses": "primary"}, False),
        ({"proxy_mode": "iptables", "nodeport_addresses": "127.0.0.0/8"}, True),
    ],
)
def test_localhost_is_routed_for_iptables_only(flags: dict[str, str], local: bool) -> None:
    assert ("net.ipv4.conf.all.route_localnet" in names(**flags)) is local


def test_bridges_are_looked_at_for_iptables_and_ipvs() -> None:
    modes = ("nftables", "iptables", "ipvs")
    assert [len(expected(configuration({"proxy-mode": mode}))) for mode in modes] == [0, 2, 2]


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    file = tmp_path / "proc/sys/net/x"
    file.parent.mkdir(parents=True)
    exactly, at_least = Parameter("proc/sys/net/x", 5), Parameter("proc/sys/net/x", 5, at_least=True)
    assert ensure(exactly, tmp_path) is None
    file.write_text("7\n")
    assert ensure(at_least, tmp_path) is False
    assert file.read_text() == "7\n"
    assert ensure(exactly, tmp_path) is True
    assert file.read_text() == "5"
    assert ensure(exactly, tmp_path) is False


def test_a_refusal_names_all_a_person_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "proc/sys/net/x"
    file.parent.mkdir(parents=True)
    file.write_text("7")

    def refuse(self: Path, text: str) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(KernelError) as caught:
        ensure(Parameter("proc/sys/net/x", 9, True, "pass --x=0"), tmp_path)
    assert str(caught.value) == "cannot set net.x from 7 to 9: Permission denied; pass --x=0"
