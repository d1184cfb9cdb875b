"""The harness that the ipvs tests stand on: a kernel of its own that brings back what was said and how it ended."""

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
