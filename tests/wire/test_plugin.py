"""docs/testing.md says what works: each of its examples is run as a person would run it."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = "svcplane.testing.plugin"
BLOCK = re.compile(r"```(python|ini)\n(.*?)```", re.DOTALL)
CHECK_SETTINGS = """
import time

def test_settings(svcplane_api, svcplane_namespace):
    path = f"/api/v1/namespaces/{svcplane_namespace}"
    spec = {"type": "NodePort", "ports": [{"port": 80}], "selector": {"app": "web"}}
    made = svcplane_api.call("POST", f"{path}/services", {"metadata": {"name": "web"}, "spec": spec})
    assert made["spec"]["clusterIP"].startswith("10.50.0.")
    assert 31000 <= made["spec"]["ports"][0]["nodePort"] <= 31099
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{svcplane_namespace}/endpointslices"
    end = time.monotonic() + 20
    while not svcplane_api.call("GET", slices)["items"]:
        assert time.monotonic() < end, "the controllers wrote no slice"
        time.sleep(0.05)
"""


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCK.findall((ROOT / "docs/testing.md").read_text()) if found == language]


def run_pytest(directory: Path) -> str:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        PLUGIN,
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(directory),
    ]
    done = subprocess.run(
        [*command, str(directory)],
        capture_output=True,
        text=True,
        cwd=directory,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.tools("kubectl")
def test_examples_of_the_documentation_pass(tmp_path: Path) -> None:
    examples = blocks("python")
    for text in examples:
        (tmp_path / text.split()[1]).write_text(text)
    assert f"{len(examples)} passed" in run_pytest(tmp_path)


def test_settings_of_the_documentation_are_obeyed(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(blocks("ini")[0])
    (tmp_path / "test_settings.py").write_text(CHECK_SETTINGS)
    assert "1 passed" in run_pytest(tmp_path)


def test_package_announces_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {PLUGIN: PLUGIN}
