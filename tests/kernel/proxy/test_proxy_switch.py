"""Another mode while connections are made: none of them fails, and nothing of the old mode stays."""

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from noderig import ENDPOINTS, NODE_IP, Rig
from svcplane.proxy.planes import PLANES

pytestmark = [
    pytest.mark.root,
    pytest.mark.tools("ip", "nft", "iptables", "conntrack"),
    pytest.mark.xdist_group("proxy"),
]
#: Modes between which a switch disturbs nobody: what they began goes on by connection tracking, or in the relay.
MODES = tuple(mode for mode in ("nftables", "iptables", "userspace") if mode in PLANES)
PAIRS = tuple(itertools.permutations(MODES, 2))
TABLES = {"nftables": " svcplane", "userspace": " svcplane-userspace"}
HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"


class Load:
    """Connections one after the other, to the ClusterIP and the node port; what came of them."""

    def __init__(self, rig: Rig, pause_s: float = 0.0) -> None:
        self._rig, self._pause_s, self._stop = rig, pause_s, threading.Event()
        self.outcomes: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        targets = itertools.cycle(((), (NODE_IP, 30080)))
        while not self._stop.wait(self._pause_s):
            try:
                outcome = self._rig.ask(*next(targets))
            except OSError as error:
                outcome = f"{type(error).__name__}: {error}"
            self.outcomes[outcome] += 1

    @property
    def made(self) -> int:
        return self.outcomes.total()

    def more(self, count: int) -> None:
        """Wait until so many more connections have been tried."""
        until, end = self.made + count, time.monotonic() + 30
        while self.made < until:
            assert time.monotonic() < end
            time.sleep(0.01)

    @contextlib.contextmanager
    def going(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join(30)


def traces(rig: Rig, mode: str) -> str:
    """What a mode has in the kernel."""
    if mode in TABLES:
        return "".join(
            line for line in rig.on_node("nft", "list", "tables").splitlines() if line.endswith(TABLES[mode])
        )
    tools = ("iptables-nft-save", "iptables-legacy-save", "ip6tables-nft-save", "ip6tables-legacy-save")
    return "".join(line for tool in tools for line in rig.on_node(tool).splitlines() if "KUBE-" in line)


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_a_mode_changed_in_the_file_disturbs_no_connection(rig: Rig, tmp_path: Path, old: str, new: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"{HEAD}mode: {old}\n")
    rig.write(*ENDPOINTS)
    proxy = rig.proxy("--config", str(file))
    proxy.ready()
    with rig.connect() as lasting:
        stream = lasting.makefile("rw")
        stream.readline()
        load = Load(rig)
        with load.going():
            load.more(50)
            file.write_text(f"{HEAD}mode: {new}\n")
            proxy.until(lambda: f"switched: from={old} to={new}" in proxy.log)
            load.more(50)
        stream.write("still here\n")
        stream.flush()
        assert stream.readline() == "still here\n"
    assert set(load.outcomes) == set(ENDPOINTS), load.outcomes
    assert proxy.page("/proxyMode")[1] == new
    assert traces(rig, new)
    assert traces(rig, old) == ""


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_a_restart_in_another_mode_disturbs_no_connection(rig: Rig, old: str, new: str) -> None:
    rig.write(*ENDPOINTS)
    first = rig.proxy("--proxy-mode", old)
    first.ready()
    load = Load(rig)
    with load.going():
        load.more(20)
        first.end()
        load.more(20)
        second = rig.proxy("--proxy-mode", new)
        second.ready()
        second.until(lambda: traces(rig, old) == "")
        load.more(20)
    assert set(load.outcomes) == set(ENDPOINTS), load.outcomes
    assert traces(rig, new)
    second.end()  # it would put back what is taken away
    assert rig.run("--cleanup").returncode == 0
    assert [traces(rig, mode) for mode in MODES] == [""] * len(MODES)


def test_a_mode_this_host_cannot_have_changes_nothing(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"{HEAD}mode: nftables\n")
    rig.write(*ENDPOINTS)
    proxy = rig.proxy("--config", str(file))
    proxy.ready()
    file.write_text(f"{HEAD}mode: kernelspace\n")
    proxy.until(lambda: "mode: kernelspace: must be one of" in proxy.log)
    assert rig.ask() in ENDPOINTS
    assert proxy.page("/proxyMode")[1] == "nftables"
