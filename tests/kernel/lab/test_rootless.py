"""Labs of a caller without privilege: no capability over the network or mounts in the first user namespace."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.tools("ip", "nsenter", "setpriv", "unshare", "nft")]

PROGRAM = [sys.executable, "-c", "from svcplane.cli.main import main; main()"]
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
# User 0 of the machine without its capabilities: the interpreter may be where no other user comes.
# To be user 0 of a namespace too it needs CAP_SETFCAP, which other users do not need.
UNPRIVILEGED = ["setpriv", "--inh-caps=-all", "--bounding-set=-all,+setfcap"]


class Caller:
    """Runs commands without privilege in a network namespace that a test has to itself."""

    def __init__(self) -> None:
        hold = ["unshare", "--net", "sh", "-c", "ip link set lo up; echo up; exec sleep 1000"]
        self._holder = subprocess.Popen(hold, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "up\n"

    def argv(self, *words: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--", *UNPRIVILEGED, *PROGRAM, "lab", *words]

    def lab(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.argv(*words), capture_output=True, text=True, timeout=100, check=False)
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def sockets(self) -> list[str]:
        """Abstract sockets of the namespace: the keeper's is one."""
        table = Path(f"/proc/{self._holder.pid}/net/unix").read_text()
        return [line.split(None, 7)[7] for line in table.splitlines() if "@svcplane labs" in line]

    def close(self) -> None:
        self._holder.kill()
        self._holder.communicate()


@pytest.fixture
def caller() -> Iterator[Caller]:
    made = Caller()
    yield made
    made.close()


def test_demo_needs_no_root_and_leaves_nothing(caller: Caller) -> None:
    shown = caller.lab("demo", "--mode", "nftables,iptables,userspace", "--manifests", str(EXAMPLES))
    assert "passed:" in shown.stdout
    assert "the lab is gone" in shown.stdout
    until = time.monotonic() + 10
    while caller.sockets() and time.monotonic() < until:
        time.sleep(0.01)
    assert caller.sockets() == []  # the keeper has ended, and with it its namespaces


def test_several_labs_of_a_caller_are_found_by_every_command_and_go_one_by_one(caller: Caller) -> None:
    starting = [
        subprocess.Popen(
            caller.argv("up", "--name", name, "--nodes", "1"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for name in ("one", "two")
    ]
    for each in starting:
        output, _ = each.communicate(timeout=100)
        assert each.returncode == 0, output
    assert "node1" in caller.lab("status", "--name", "two").stdout
    seen = caller.lab("exec", "--name", "one", "node1", "--", "ip", "-br", "address").stdout
    assert "172.31.0.11/24" in seen
    caller.lab("down", "--name", "one")
    gone = caller.lab("status", "--name", "one", check=False)
    assert gone.returncode == 2
    assert "there is no lab called 'one'" in gone.stderr
    assert "there is two" in gone.stderr
    caller.lab("down", "--name", "two")
    until = time.monotonic() + 10
    while caller.sockets() and time.monotonic() < until:
        time.sleep(0.01)
    assert caller.sockets() == []
