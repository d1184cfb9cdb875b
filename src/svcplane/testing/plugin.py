"""The pytest plug-in: fixtures with a real API server.  See docs/testing.md.

Settings (pytest's configuration file): `svcplane_flags`, more flags of `svcplane apiserver`, one a line;
`svcplane_controllers`, whether the controllers run too (false if not said).
"""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from svcplane.testing.process import ApiServerProcess, ControllersProcess


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("svcplane_flags", "more flags of the API server that svcplane_api starts", type="linelist")
    parser.addini("svcplane_controllers", "run svcplane's controllers on svcplane_api", type="bool", default=False)


@pytest.fixture(scope="session")
def svcplane_api(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiServerProcess]:
    """A real API server on loopback for the whole run, a process of its own: `.kubeconfig`, `.url`, `.token`,
    `.ca_file`, `.call(method, path, body)`."""
    directory = tmp_path_factory.mktemp("svcplane")
    with ExitStack() as stack:
        server = stack.enter_context(ApiServerProcess(directory, *request.config.getini("svcplane_flags")))
        if request.config.getini("svcplane_controllers"):
            stack.enter_context(ControllersProcess(server))
        yield server


@pytest.fixture
def svcplane_namespace(svcplane_api: ApiServerProcess) -> Iterator[str]:
    """The name of a new namespace of `svcplane_api`, deleted after the test."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    svcplane_api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    svcplane_api.call("DELETE", f"/api/v1/namespaces/{name}")
