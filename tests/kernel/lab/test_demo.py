"""The demonstration as a person runs it, and that it leaves nothing behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from svcplane.kernel.links.run import KernelLinks
from svcplane.lab.cluster import STATE

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.xdist_group("lab"),
    pytest.mark.tools("ip", "nsenter"),
]

NAME = f"t{os.getpid()}"
PROGRAM = [sys.executable, "-c", "from svcplane.cli.main import main; main()"]
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def until_said(process: subprocess.Popen[str], text: str) -> None:
    """Read what it says until a line with the text."""
    assert process.stdout is not None
    said = ""
    while text not in said:
        line = process.stdout.readline()
        assert line, said
        said += line


def demo(*flags: str, modes: str = "nftables,iptables", process_group: int | None = None) -> subprocess.Popen[str]:
    argv = [
        *PROGRAM,
        "lab",
        "demo",
        "--name",
        NAME,
        "--mode",
        modes,
        "--manifests",
        str(EXAMPLES),
        *flags,
    ]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdout=pipe, stderr=subprocess.STDOUT, text=True, process_group=process_group)


def left_behind() -> list[str]:
    found = [*KernelLinks().namespaces(f"svclab-{NAME}-")]
    found += [str(path) for path in (STATE / NAME,) if path.exists()]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"{STATE}/{NAME}/".encode() in line or f"/svcplane-uml-{NAME}-".encode() in line:
                found.append(line.decode().replace("\0", " "))
    return found


def test_demo_holds_and_leaves_nothing_behind() -> None:
    process = demo()
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert "passed:" in output
    assert left_behind() == []


@pytest.mark.tools("linux.uml", "modprobe", "ipset")
def test_demo_of_a_mode_that_this_kernel_may_lack_holds_in_a_kernel_of_its_own() -> None:
    process = demo(modes="ipvs")
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    assert "expectations held in ipvs" in output
    assert left_behind() == []


@pytest.mark.tools("linux.uml", "modprobe", "ipset")
def test_demo_interrupted_in_a_kernel_of_its_own_ends_that_kernel() -> None:
    process = demo(modes="ipvs")
    until_said(process, "a lab of 2 nodes")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert left_behind() == []


def test_demo_interrupted_in_the_middle_leaves_nothing_behind() -> None:
    process = demo()
    until_said(process, "a lab of 2 nodes")  # the lab is up and the demonstration has begun
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert left_behind() == []


def test_demo_interrupted_again_and_again_still_leaves_nothing_behind() -> None:
    """As from a terminal: the signal goes to all processes of the group, also while they clean up."""
    process = demo(process_group=0)
    until_said(process, "a lab of 2 nodes")
    while process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.01)
    assert process.returncode in (130, -signal.SIGINT)  # the latter after the work, while the interpreter ends
    assert left_behind() == []


def test_demo_that_was_killed_is_cleaned_up_after_by_the_next_command() -> None:
    process = demo()
    until_said(process, "a lab of 2 nodes")
    process.kill()
    process.communicate(timeout=60)
    assert left_behind()
    up, down = ([*PROGRAM, "lab", verb, "--name", NAME] for verb in ("up", "down"))
    again = subprocess.run(up, check=True, capture_output=True, text=True, timeout=60)
    assert "which a killed command left behind" in again.stdout
    subprocess.run(down, check=True, capture_output=True, timeout=60)
    assert left_behind() == []


def test_kept_demo_says_how_to_use_it_and_serves_its_console_to_the_host() -> None:
    down = [*PROGRAM, "lab", "down", "--name", NAME]
    try:
        kept = demo("--keep", modes="nftables")
        output, _ = kept.communicate(timeout=100)
        assert kept.returncode == 0, output
        assert f"svcplane lab down --name {NAME}" in output
        console = subprocess.Popen(
            [*PROGRAM, "lab", "console", "--name", NAME, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert console.stdout is not None
            address = console.stdout.readline().split()[-1]
            page, _, token = address.partition("#token=")
            services = urllib.request.Request(
                page.replace("/console", "/api/v1/namespaces/default/services"),
                headers={"Authorization": f"Bearer {token.strip()}"},
            )
            with urllib.request.urlopen(services, timeout=10) as answer:
                assert b'"hello"' in answer.read()
        finally:
            console.terminate()
            console.communicate(timeout=20)
    finally:
        subprocess.run(down, check=True, capture_output=True, timeout=60)
    assert left_behind() == []


def test_demo_interrupted_while_the_lab_is_made_leaves_nothing_behind() -> None:
    process = demo()
    until = time.monotonic() + 30
    while not KernelLinks().namespaces(f"svclab-{NAME}-") and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert left_behind() == []


def test_second_lab_of_a_name_is_refused_in_one_line_and_the_first_stays(tmp_path: Path) -> None:
    up = [*PROGRAM, "lab", "up", "--name", NAME]
    down = [*PROGRAM, "lab", "down", "--name", NAME]
    try:
        subprocess.run(up, check=True, capture_output=True, timeout=60)
        again = subprocess.run(up, capture_output=True, text=True, timeout=60, check=False)
        assert again.returncode == 2
        assert again.stderr == f"svcplane: lab {NAME} exists: remove it with `svcplane lab down --name {NAME}`\n"
        assert left_behind()
    finally:
        subprocess.run(down, check=True, capture_output=True, timeout=60)
    assert left_behind() == []
