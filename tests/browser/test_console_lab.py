"""The console in front of a real lab: connections that are made now are seen on the edges they take."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from selenium import webdriver

from conftest import Page, make_driver
from labrig import LabRig
from svcplane.kernel.links.run import command_in, inside

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.tools("ip", "nsenter", "nft", "conntrack", "chromium", "chromedriver"),
]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
#: Connects again and again until it is ended.
CLIENT = """
import socket, sys, time
while True:
    with socket.create_connection((sys.argv[1], 80), 5) as one:
        one.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        while one.recv(4096):
            pass
    time.sleep(0.05)
"""


class LabSite:
    """What a Page needs of a Site, of a lab's API server."""

    url = "https://172.31.0.1:6443/console"

    def __init__(self, rig: LabRig) -> None:
        self.token = yaml.safe_load(rig.cluster.kubeconfig.read_text())["users"][0]["user"]["token"]
        self.server = self


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabRig]:
    with LabRig(f"c{os.getpid()}", tmp_path_factory.mktemp("lab")) as made:
        made.create(tree for file in sorted(EXAMPLES.glob("*.yaml")) for tree in yaml.safe_load_all(file.read_text()))
        made.until(lambda: "no problem found" in made.run("node1", "svcplane explain svc/hello").stdout, "hello")
        yield made


@pytest.fixture(scope="module")
def browser(rig: LabRig) -> Iterator[webdriver.Chrome]:
    """In the lab's client namespace.  The test talks to it from there too."""
    with inside(rig.cluster.namespace("client")):
        made = make_driver()
        yield made
        made.quit()


@pytest.fixture(scope="module")
def traffic(rig: LabRig) -> Iterator[None]:
    ip = rig.run("client", "kubectl get service hello -o jsonpath={.spec.clusterIP}").stdout
    argv = command_in(rig.cluster.namespace("client"), [sys.executable, "-c", CLIENT, ip])
    with subprocess.Popen(argv) as client:
        yield
        assert client.poll() is None, "the client ended by itself"
        client.terminate()


@pytest.fixture
def page(rig: LabRig, browser: webdriver.Chrome, traffic: None) -> Page:
    site = LabSite(rig)
    made = Page(browser, site)  # type: ignore[arg-type]
    made.window(1440, 900)
    made.colours("light")
    return made


def test_traffic_is_on_the_edges_it_takes(page: Page) -> None:
    page.open()
    page.until(lambda: page.data("busy") == "3", "the edges to the three Pods carry traffic")
    assert "new/s" in page.text(".flowing")
    page.shot("lab-map-light")
    script = "return [...svcplane.frame.traffic.of('default/hello').ends.keys()].sort().join()"
    page.until(
        lambda: page.driver.execute_script(script) == "default/hello-1,default/hello-2,default/hello-3",
        "each flow is told of its Pod",
    )
    page.until(lambda: page.driver.execute_script(MOVED), "dots move along the edges")
    page.go("service/default/hello")
    page.until(lambda: "new/s" in page.text("table .flow"), "the Service's page tells it too")
    page.shot("lab-service-light")
    page.colours("dark")
    page.go("map")
    page.until(lambda: page.data("busy") == "3", "the map again")
    page.shot("lab-map-dark")
    assert page.errors() == []


def test_a_rule_of_somebody_else_is_on_the_way_and_among_the_rules(page: Page, rig: LabRig) -> None:
    """Of a node elsewhere: its agent asks its proxy, which reads the kernel."""
    made = ("nft add table inet guard", "nft add chain inet guard f '{ type filter hook forward priority 0; }'")
    for command in (*made, "nft add rule inet guard f ip saddr 172.31.0.100 tcp dport 8080 drop"):
        assert rig.run("node2", command).returncode == 0
    try:
        page.open("trace?source=172.31.0.100&target=default/hello&port=80&node=node2")
        page.one("button.primary").click()
        page.until(lambda: page.text(".verdict").startswith("✕drop"), "the verdict")
        assert "inet table guard, chain f (at forward)" in page.text(".verdict")
        page.shot("lab-trace-drop-light")
    finally:
        rig.run("node2", "nft delete table inet guard")
    page.go("rules?node=node2")
    page.until(lambda: "mode nftables" in page.text("main .line [role=status]"), "the kernel's rules are shown")
    assert page.text(".drift") == "● The kernel is as desired."
    page.shot("lab-rules-light")
    page.one("#rules-search").send_keys("default/hello:http")
    page.until(lambda: "default/sticky" not in page.text("main .list"), "those of one Service alone")
    assert page.text("main .list").count("default/hello:http") > 3
    assert "an endpoint, chosen by its number in the pool" in page.text("main .list")
    page.shot("lab-rules-service-light")
    assert page.errors() == []


MOVED = """
const canvas = document.querySelector('canvas.above'), pen = canvas.getContext('2d');
return pen.getImageData(0, 0, canvas.width, canvas.height).data.some((one) => one)
"""


def test_trace_from_a_pod(page: Page) -> None:
    page.open("trace?source=default/hello-1&target=default/hello&port=80")
    page.one("button.primary").click()
    page.until(lambda: page.text(".verdict").startswith("●deliver"), "the verdict")
    page.shot("lab-trace-light")
    assert page.text(".verdict .badge") == "●svcplane's live rules agree"
    assert page.all("ol.hops li"), "the way through the kernel's rules"
    page.go("events")
    page.until(lambda: page.all("main .row"), "events")
    page.shot("lab-events-light")
