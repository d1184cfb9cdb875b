"""What the verbs that look at a node tell in the other modes (ipvs: tests/kernel/ipvs)."""

import os
from collections.abc import Iterator

import pytest

from labrig import LabRig
from modeverbs import Verbs, VerbTests

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.tools("ip", "nsenter", "nft", "conntrack", "iptables"),
    pytest.mark.xdist_group("lab"),
]


@pytest.fixture(scope="module", params=["iptables", "userspace"])
def verbs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verbs]:
    with LabRig(f"m{os.getpid()}", tmp_path_factory.mktemp("lab"), request.param) as rig:
        found = Verbs(rig, request.param)
        found.prepare()
        yield found


class TestIptablesAndUserspace(VerbTests):
    pass
