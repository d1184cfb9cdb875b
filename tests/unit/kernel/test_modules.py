"""A module is there afterwards, or it is said that it is not."""

import pytest

from svcplane.kernel.modules import load_module


def test_no_such_module_is_no_error() -> None:
    assert not load_module("no_such_module_of_any_kernel")


def test_nor_is_a_host_without_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert not load_module("nf_conntrack")
