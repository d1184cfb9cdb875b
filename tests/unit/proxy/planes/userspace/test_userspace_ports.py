"""Which ports the relay may listen on."""

import pytest

from svcplane.base.errors import ConfigError
from svcplane.proxy.planes.userspace.ports import relay_ports


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", range(0)),
        ("0", range(0)),
        ("0-0", range(0)),
        ("4000-4010", range(4000, 4011)),
        ("4000+10", range(4000, 4011)),
        ("4000", range(4000, 4001)),
        ("1-65535", range(1, 65536)),
    ],
)
def test_range_is_read_as_kubernetes_does(text: str, wanted: range) -> None:
    assert relay_ports([("proxy-port-range", text)]) == wanted


@pytest.mark.parametrize("text", ["4010-4000", "1-65536", "0-5", "65000+1000", "a-b", "-5", "5-", "1 - 2"])
def test_wrong_range_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--proxy-port-range .*must be BEGIN-END"):
        relay_ports([("proxy-port-range", text)])
