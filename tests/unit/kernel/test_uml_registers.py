"""What user-mode Linux is started with, by the size of the processor's registers."""

import ctypes
import platform
from pathlib import Path

import pytest

from svcplane.base.errors import EnvironmentProblem
from svcplane.kernel import uml_registers

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="user-mode Linux is there for x86_64")


def test_registers_that_it_knows_need_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(uml_registers, "state_bytes", lambda: 2696)
    assert uml_registers.environment(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_what_goes_before_libc_is_a_library_with_ptrace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(uml_registers, "state_bytes", lambda: 11008)
    assert uml_registers.environment(tmp_path) == {"LD_PRELOAD": str(tmp_path / "ptrace.so")}
    library = ctypes.CDLL(str(tmp_path / "ptrace.so"), use_errno=True)
    library.ptrace.restype = ctypes.c_long
    attach, nobody = 16, 0x7FFFFFFF
    assert library.ptrace(attach, nobody, 0, None) == -1
    assert ctypes.get_errno() != 0


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(uml_registers, "state_bytes", lambda: 11008)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="install tcc"):
        uml_registers.environment(tmp_path)


def test_the_size_is_told_from_a_process_of_its_own() -> None:
    size = uml_registers.state_bytes()
    assert size == 0 or size >= 512 + 64  # what FXSAVE stores, and XSAVE's header
