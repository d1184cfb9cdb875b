"""The harness that the ipvs tests stand on: a kernel of its own that brings back what was said and how it ended."""

import sys
from pathlib import Path

import pytest

from svcplane.kernel import uml


@pytest.mark.tools("linux.uml", "modprobe")
def test_brings_out_the_output_and_the_exit_status(tmp_path: Path) -> None:
    script = "echo in $PWD; echo oops >&2; uname -r; modprobe ip_vs && ls -d /proc/net/ip_vs; exit 7"
    done = uml.run(["sh", "-c", script], tmp_path, cwd=tmp_path, timeout_s=60)
    release = sorted(path.name for path in uml.MODULES.iterdir())[-1]
    assert (done.status, done.output.split("\n")) == (
        7,
        [f"in {tmp_path}", "oops", release, "/proc/net/ip_vs", ""],
    )


@pytest.mark.tools("linux.uml", "modprobe")
def test_a_command_that_does_not_end_is_told_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(uml.UmlProblem, match=r"did not end within 8 s\nhello"):
        uml.run(["sh", "-c", "echo hello; sleep 600"], tmp_path, cwd=tmp_path, timeout_s=8)


#: Copies and compares outside of Python's lock, by whatever registers libc chooses for this processor.
COPIES = """
import ctypes, threading
libc, size, wrong = ctypes.CDLL(None), 1 << 18, []
def copy(number):
    for turn in range(60):
        source = ctypes.create_string_buffer(bytes([number + 1]) * size, size)
        target = ctypes.create_string_buffer(size)  # new pages each turn, which fault in the middle of a copy
        libc.memcpy(target, source, ctypes.c_size_t(size))
        if libc.memcmp(target, source, ctypes.c_size_t(size)) or target.raw != source.raw:
            wrong.append((number, turn))
threads = [threading.Thread(target=copy, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("wrong:", wrong)
"""


@pytest.mark.tools("linux.uml", "modprobe")
def test_registers_keep_what_is_in_them(tmp_path: Path) -> None:
    """Over switches between threads and page faults, whatever the processor; and where the environment is empty."""
    script = tmp_path / "copies.py"
    script.write_text(COPIES)
    share = tmp_path / "share"
    share.mkdir()
    done = uml.run(["env", "-i", sys.executable, str(script)], share, cwd=tmp_path, timeout_s=60)
    assert (done.status, done.output) == (0, "wrong: []\n")
