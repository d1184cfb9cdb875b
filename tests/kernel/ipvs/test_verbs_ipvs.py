"""`svcplane trace`, `affinity`, `top`, `plan --drift`, `doctor` and `history` in ipvs mode, on a lab inside."""

import os
from collections.abc import Iterator

import pytest

from labrig import LabRig
from modeverbs import Verbs, VerbTests

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.tools("ip", "nsenter", "linux.uml", "modprobe", "ipset", "conntrack", "iptables"),
]


@pytest.fixture(scope="module")
def verbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verbs]:
    with LabRig(f"v{os.getpid()}", tmp_path_factory.mktemp("lab"), "ipvs") as rig:
        found = Verbs(rig, "ipvs")
        found.prepare()
        yield found


class TestIpvs(VerbTests):
    pass
