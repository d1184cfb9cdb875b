"""What is an address or a network, and what is none."""

import pytest

from svcplane.base.net import canonical_cidr


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("010.0.0.1/08", "10.0.0.0/8"),
        ("FD00::1/64", "fd00::/64"),
        ("fd00::%1/64", None),
        ("10.0.0.0/\u0668", None),
        ("10.0.0.0/255.0.0.0", None),
        ("10.0.0.0/+8", None),
        ("10.0.0.0/33", None),
        ("10.0.0.0", None),
    ],
)
def test_networks(text: str, network: str | None) -> None:
    assert canonical_cidr(text) == network
