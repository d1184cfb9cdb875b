"""Where the demonstration shows each mode, and what it says of one that it cannot show here."""

import pytest

from svcplane.base.errors import EnvironmentProblem
from svcplane.lab.elsewhere import split

HINDRANCES = {"nftables": "", "ipvs": "this kernel has no IPVS; use another --proxy-mode", "iptables": "no iptables"}


def test_a_mode_that_the_kernel_lacks_is_shown_in_another_kernel() -> None:
    here, there, said = split(HINDRANCES, kernel=True, asked=False)
    assert (here, there) == (["nftables"], ["ipvs"])
    assert said == [
        "ipvs is shown in user-mode Linux, a kernel of its own: this kernel has no IPVS",
        "leaving out iptables: no iptables",
    ]


def test_without_another_kernel_it_is_left_out_with_what_helps() -> None:
    here, there, said = split(HINDRANCES, kernel=False, asked=False)
    assert (here, there) == (["nftables"], [])
    assert said[0] == (
        "leaving out ipvs: this kernel has no IPVS; use another --proxy-mode; "
        "or apt-get install user-mode-linux kmod for a kernel of its own"
    )


def test_a_mode_that_was_asked_for_and_cannot_be_shown_is_an_error() -> None:
    with pytest.raises(EnvironmentProblem, match="--mode ipvs: this kernel has no IPVS"):
        split({"ipvs": HINDRANCES["ipvs"]}, kernel=False, asked=True)


def test_what_cannot_be_kept_is_told_with_what_stays_instead() -> None:
    *_, line = split(
        {"nftables": "", "userspace": "", "ipvs": HINDRANCES["ipvs"]}, kernel=True, asked=False, keep=True
    )[2]
    assert line == (
        "--keep cannot keep ipvs: that kernel ends with the demonstration; the lab that stays is in userspace mode"
    )
    *_, line = split({"ipvs": HINDRANCES["ipvs"]}, kernel=True, asked=True, keep=True)[2]
    assert line == "--keep cannot keep ipvs: that kernel ends with the demonstration; no lab stays"
    assert split({"nftables": "", "ipvs": ""}, kernel=True, asked=False, keep=True)[2] == []
