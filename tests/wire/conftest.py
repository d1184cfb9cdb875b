"""A real API server with controllers, and the clients that are driven against it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.wire.kubectl import Kubectl

from svcplane.testing.plugin import svcplane_namespace
from svcplane.testing.process import ApiServerProcess, ControllersProcess

__all__ = ["svcplane_namespace"]


@pytest.fixture(scope="session")
def svcplane_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServerProcess]:
    """As the plug-in's, which need not be installed here."""
    with ApiServerProcess(tmp_path_factory.mktemp("svcplane")) as server:
        yield server


@pytest.fixture(scope="session")
def controllers(svcplane_api: ApiServerProcess) -> Iterator[None]:
    with ControllersProcess(svcplane_api):
        yield


@pytest.fixture
def kubectl(svcplane_api: ApiServerProcess, svcplane_namespace: str, tmp_path: Path) -> Kubectl:
    return Kubectl(svcplane_api.kubeconfig, svcplane_namespace, tmp_path)
