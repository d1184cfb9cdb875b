"""An etcd that each test has for itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from svcplane.testing.etcd import Etcd


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with Etcd(tmp_path / "etcd") as running:
        yield running
