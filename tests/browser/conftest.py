"""An API server that serves the console, and a Chromium that opens it.  Screenshots go to $SCREENSHOTS if it is set."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from svcplane.api.http import Request, Response
from svcplane.cli.console import mount_console
from svcplane.server.app import ApiServer, ApiServerConfig
from svcplane.store.memory import MemoryStore
from svcplane.testing.server import Caller

Tree = dict[str, Any]
WAIT_S = 20
ROLES = "rules: [{users: [guest], role: read-only, resources: [services, endpointslices, pods]}]"
SIZE = (1440, 900)


class Site:
    """A server in a thread of its own."""

    def __init__(self, directory: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        (directory / "tokens.csv").write_text('admin-token,admin,1,"system:masters"\nguest-token,guest,2\n')
        (directory / "roles.yaml").write_text(ROLES)
        self._config = ApiServerConfig(
            data_dir=directory,
            secure_port=0,
            token_auth_file=directory / "tokens.csv",
            role_file=directory / "roles.yaml",
            audit=None,
        )
        self._store = MemoryStore()
        self.kubeconfig = directory / "kubeconfig"
        self.server: ApiServer = self.run(self._start(self._config))

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _start(self, config: ApiServerConfig) -> ApiServer:
        server = await ApiServer(config, self._store).__aenter__()
        mount_console(server)
        return server

    def stop(self) -> None:
        self._port = self.server.port
        self.run(self.server.close())

    def start_again(self) -> None:
        """On the port it had, with the objects it had."""
        self.server = self.run(self._start(replace(self._config, secure_port=self._port)))

    @property
    def url(self) -> str:
        return f"{self.server.url}/console"

    def call(self, method: str, path: str, body: object = None) -> Tree:
        """As administrator; a failure fails the test."""
        status, answer = self.run(Caller(self.server.handle).call(method, path, body))
        assert status < 300, answer
        return dict(answer)

    def create(self, *objects: Tree) -> None:
        async def work() -> None:
            caller = Caller(self.server.handle)
            for obj in objects:
                status, answer = await caller.call(
                    "POST", path_of(obj), {k: v for k, v in obj.items() if k != "status"}
                )
                assert status == 201, answer
                if obj.get("status"):
                    name = f"{path_of(obj)}/{obj['metadata']['name']}/status"
                    patch = {"content-type": "application/merge-patch+json"}
                    status, answer = await caller.call("PATCH", name, {"status": obj["status"]}, patch)
                    assert status == 200, answer

        self.run(work())

    def patch(self, path: str, body: Tree) -> None:
        kind = {"content-type": "application/merge-patch+json"}
        status, answer = self.run(Caller(self.server.handle).call("PATCH", path, body, kind))
        assert status == 200, answer

    def label(self, names: list[str], value: str) -> None:
        """Changes these Services of namespace default."""

        async def work() -> None:
            patch = {"content-type": "application/merge-patch+json"}
            for name in names:
                path = f"/api/v1/namespaces/default/services/{name}"
                body = {"metadata": {"labels": {"round": value}}}
                assert (await Caller(self.server.handle).call("PATCH", path, body, patch))[0] == 200

        self.run(work())

    def carry(self, *flows: tuple[str, str, int]) -> None:
        """The agent of node1 tells of these connections: Service address, Pod address, new ones in a second."""
        told = [
            {"protocol": "tcp", "address": address, "port": 80, "endpoint": pod, "endpoint_port": 8080}
            | {"new": new, "active": 1, "sent": 10 * new, "received": 1000 * new}
            for address, pod, new in flows
        ]
        first = "/api/v1/nodes/node1/proxy/traffic"

        async def agent(name: str, request: Request) -> Response:
            body = {"seconds": 1.0, "flows": told if request.path == first else []}
            return Response(200, msgspec.json.encode(body))

        self.server.handle.node_proxy = agent  # type: ignore[attr-defined]

    def close(self) -> None:
        self.run(self.server.close())
        self.run(self._hung_up())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _hung_up(self) -> None:
        """Ends the connections that wait for the browser's goodbye: left open, they would be complained about later."""
        selector = self._loop._selector  # type: ignore[attr-defined]
        for key in list(selector.get_map().values()):
            owner = getattr(getattr(key.data[0], "_callback", None), "__self__", None)
            if isinstance(owner, asyncio.Transport):
                owner.abort()
        await asyncio.sleep(0)


def path_of(obj: Tree) -> str:
    base = "/api/v1" if obj["apiVersion"] == "v1" else f"/apis/{obj['apiVersion']}"
    namespace = obj["metadata"].get("namespace")
    middle = f"/namespaces/{namespace}" if namespace else ""
    plural = {"EndpointSlice": "endpointslices"}.get(obj["kind"], obj["kind"].lower() + "s")
    return f"{base}{middle}/{plural}"


class Page:
    """The console in a browser."""

    def __init__(self, driver: webdriver.Chrome, site: Site) -> None:
        self.driver, self.site = driver, site

    def open(self, view: str = "map", url: str = "") -> "Page":
        self.driver.get("about:blank")
        self.driver.get(url or f"{self.site.url}#token={self.site.server.token}")
        self.until(lambda: self.text(".status") == "●live", "the console is live")
        if view != "map":
            self.go(view)
        return self

    def go(self, view: str) -> None:
        self.driver.execute_script("location.hash = arguments[0]", f"#/{view}")

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        self.until(lambda: bool(self.all(selector)), f"{selector} is there")
        return self.all(selector)[0]

    def text(self, selector: str) -> str:
        """Without line breaks; "" where there is none."""
        script = "return document.querySelector(arguments[0])?.innerText.replace(/\\s*\\n\\s*/g, '') ?? ''"
        return str(self.driver.execute_script(script, selector))

    def until(self, condition: Callable[[], bool], what: str) -> None:
        WebDriverWait(self.driver, WAIT_S, 0.05).until(lambda _: condition(), f"not within {WAIT_S} s: {what}")

    def press(self, *keys: str) -> None:
        """Keys to whatever has the focus."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def focused(self) -> str:
        return str(self.driver.execute_script("return document.activeElement.getAttribute('aria-label')"))

    def colours(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def window(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def data(self, name: str) -> str:
        """What the map says of itself: `services`, `busy` (edges with traffic)."""
        return str(self.driver.execute_script("return document.querySelector('canvas')?.dataset[arguments[0]]", name))

    def kind(self, key: str) -> str:
        script = "return svcplane.cluster.summaries.get(arguments[0])?.service.spec.type ?? ''"
        return str(self.driver.execute_script(script, key))

    def timed(self, script: str, times: int) -> float:
        """Milliseconds of one run: the median."""
        body = (
            "const { frame } = svcplane; const took = [];"
            f" for (let i = 0; i < {times}; i += 1)"
            f" {{ const began = performance.now(); {script}; took.push(performance.now() - began); }}"
            " return took.sort((a, b) => a - b)[took.length >> 1]"
        )
        return float(self.driver.execute_script(body))

    def shot(self, name: str) -> None:
        directory = os.environ.get("SCREENSHOTS")
        if directory:
            Path(directory).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(f"{directory}/{name}.png")

    def errors(self) -> list[str]:
        """What the browser complained about; answers of the API that a test provokes are no faults of the page."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE" and "Failed to load resource" not in entry["message"]
        ]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def make_driver() -> webdriver.Chrome:
    """A Chromium without a window, in this network namespace."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"):
        options.add_argument(flag)
    options.add_argument(f"--window-size={SIZE[0]},{SIZE[1]}")
    options.set_capability("acceptInsecureCerts", True)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))


@pytest.fixture(scope="session")
def driver() -> Iterator[webdriver.Chrome]:
    made = make_driver()
    yield made
    made.quit()


@pytest.fixture
def page(driver: webdriver.Chrome, site: Site) -> Iterator[Page]:
    driver.get_log("browser")
    made = Page(driver, site)
    made.window(*SIZE)
    made.colours("light")
    yield made
    driver.get("about:blank")
