"""Kernel parameters stay as wanted, and are told of once."""

import logging
from pathlib import Path

import pytest

from svcplane.proxy.config.flags import configuration
from svcplane.proxy.parameters import Parameters

TIMEOUT = "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established"
LIBERAL = "proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal"


def test_what_somebody_changes_is_set_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / TIMEOUT).parent.mkdir(parents=True)
    (tmp_path / TIMEOUT).write_text("5\n")
    parameters = Parameters(configuration({}), tmp_path)
    missing = parameters.set()
    assert TIMEOUT not in {parameter.path for parameter in missing}
    assert (tmp_path / TIMEOUT).read_text() == "86400"
    parameters.look()
    (tmp_path / TIMEOUT).write_text("77\n")
    parameters.look()
    assert (tmp_path / TIMEOUT).read_text() == "86400"
    assert [record.message for record in caplog.records] == [
        "set net.netfilter.nf_conntrack_tcp_timeout_established to 86400",
        "somebody changed net.netfilter.nf_conntrack_tcp_timeout_established: set to 86400 again",
    ]


def test_a_new_configuration_is_what_is_kept_from_then_on(tmp_path: Path) -> None:
    for path, text in ((TIMEOUT, "86400"), (LIBERAL, "0")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    parameters = Parameters(configuration({}), tmp_path)
    parameters.set()
    parameters.adopt(configuration({"conntrack-tcp-timeout-established": "2h", "conntrack-tcp-be-liberal": "true"}))
    assert ((tmp_path / TIMEOUT).read_text(), (tmp_path / LIBERAL).read_text()) == ("7200", "1")
    parameters.look()
    assert (tmp_path / TIMEOUT).read_text() == "7200"


def test_a_refusal_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / TIMEOUT).parent.mkdir(parents=True)
    (tmp_path / TIMEOUT).write_text("5")

    def refuse(self: Path, text: str) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    parameters = Parameters(configuration({}), tmp_path)
    parameters.set()
    parameters.look()
    (record,) = caplog.records
    assert "cannot set net.netfilter.nf_conntrack_tcp_timeout_established from 5 to 86400" in record.message
