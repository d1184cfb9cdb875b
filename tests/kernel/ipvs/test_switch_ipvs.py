"""From ipvs mode to another and back while connections are made: none fails, and nothing of the old mode stays.

The other mode is iptables, the only one that user-mode Linux has too.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.proxy.test_proxy_switch import HEAD, Load

from noderig import ENDPOINTS, Proxy, Rig

pytestmark = [pytest.mark.root, pytest.mark.tools("linux.uml", "modprobe", "ipset", "conntrack", "iptables")]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(Proxy, "patience", 10.0)  # there is one slow processor
    with Rig(tmp_path) as rig:
        yield rig


def left(rig: Rig, mode: str) -> list[str]:
    """What a mode has in the kernel."""
    saved = rig.on_node("iptables-save") + rig.on_node("ip6tables-save")
    mark = "SVCPLANE-" if mode == "ipvs" else "KUBE-"
    found = [line for line in saved.splitlines() if mark in line]
    if mode == "ipvs":
        found += rig.on_node("ipset", "list", "-n").split()
        links = json.loads(rig.on_node("ip", "-json", "link"))
        found += [link["ifname"] for link in links if "ipvs" in link["ifname"]]
        found += rig.on_node("cat", "/proc/net/ip_vs").splitlines()[3:]  # below the headings
    return found


def test_the_mode_is_changed_in_the_file_while_connections_are_made(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"{HEAD}mode: iptables\n")
    rig.write(*ENDPOINTS)
    proxy = rig.proxy("--config", str(file))
    proxy.ready()
    load = Load(rig, pause_s=0.3)
    with rig.connect() as lasting, load.going():
        stream = lasting.makefile("rw")
        stream.readline()
        for old, new in (("iptables", "ipvs"), ("ipvs", "iptables")):
            load.more(10)
            file.write_text(f"{HEAD}mode: {new}\n")
            proxy.until(lambda old=old, new=new: f"switched: from={old} to={new}" in proxy.log)
            load.more(10)
            assert left(rig, new)
            assert left(rig, old) == []
            stream.write("still here\n")
            stream.flush()
            assert stream.readline() == "still here\n"
    assert set(load.outcomes) == set(ENDPOINTS), load.outcomes
