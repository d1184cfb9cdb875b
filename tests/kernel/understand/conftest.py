"""One lab for all tests of a module, with the Services of the examples."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from labrig import LabRig

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabRig]:
    with LabRig(f"u{os.getpid()}", tmp_path_factory.mktemp("lab")) as rig:
        rig.create(tree for file in sorted(EXAMPLES.glob("*.yaml")) for tree in yaml.safe_load_all(file.read_text()))
        rig.until(lambda: "no problem found" in rig.run("node1", "svcplane explain svc/hello").stdout, "hello")
        yield rig
