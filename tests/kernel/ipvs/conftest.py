"""Tests here need IPVS.  Where this host's kernel has none, one user-mode Linux runs them all, and its reports are
told as if they had run here: names, failures and durations are those of inside.

It takes minutes and one core, so it is booted when the tests begin, and its reports are told after all other tests.
"""

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pytest

from svcplane.kernel import uml
from svcplane.kernel.ipvs.run import IpvsSocket

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[3]
REPORTS = "SVCPLANE_UML_REPORTS"
SOAK = ("SVCPLANE_STATES", "SVCPLANE_SEED")
TIMEOUT_S = 6000 if SOAK[0] in os.environ else 1500  # of a machine that does other things too
_INSIDE = pytest.StashKey["Inside"]()


def has_ipvs() -> bool:
    return os.geteuid() == 0 and asyncio.run(IpvsSocket().available())


def _mine(items: list[pytest.Item]) -> list[pytest.Item]:
    return [item for item in items if item.path.is_relative_to(HERE)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever of ours comes first waits for all of them; they come last."""
    if uml.INSIDE in os.environ:
        return
    mine = _mine(items)
    for item in mine:
        item.add_marker(pytest.mark.timeout(TIMEOUT_S + 60))
    items[:] = [item for item in items if item not in mine] + mine


def pytest_collection_finish(session: pytest.Session) -> None:
    mine = _mine(session.items)
    wanted = mine and uml.INSIDE not in os.environ and not session.config.option.collectonly
    if wanted and not session.testsfailed and not has_ipvs() and shutil.which(uml.PROGRAM):
        session.config.stash[_INSIDE] = Inside(mine)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if inside := session.config.stash.get(_INSIDE, None):
        inside.close()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    inside = item.config.stash.get(_INSIDE, None)
    if inside is None or not item.path.is_relative_to(HERE):  # pytest asks for every test, whatever the directory
        return None  # it runs here, or is skipped or failed for what is missing
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in inside.reports(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if path := os.environ.get(REPORTS):
        with Path(path).open("a") as file:
            file.write(json.dumps(report._to_json()) + "\n")


class Inside:
    """Every selected test of this directory in one boot; one that brought back no report counts as failed."""

    def __init__(self, items: list[pytest.Item]) -> None:
        self._directory = tempfile.TemporaryDirectory()
        share = Path(self._directory.name)
        self._file = share / "reports"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
        command += [item.nodeid for item in items]
        environment = {REPORTS: str(self._file), "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "CI": "true"}
        environment |= {name: os.environ[name] for name in SOAK if name in os.environ}
        self._until = time.monotonic() + TIMEOUT_S
        self._kernel = uml.Uml(command, share, cwd=ROOT, environment=environment)
        self._said = ""
        self._found: dict[str, list[pytest.TestReport]] | None = None

    def reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        if self._found is None:
            self._found = self._all()
        found = self._found.get(item.nodeid, [])
        if not any(report.when == "teardown" for report in found):
            found.append(_lost(item, self._said))
        return found

    def _all(self) -> dict[str, list[pytest.TestReport]]:
        self._said = "it ran, but not this test"
        try:
            self._said = self._kernel.wait(max(1.0, self._until - time.monotonic())).output
        except uml.UmlProblem as problem:
            self._said = str(problem)
        found: dict[str, list[pytest.TestReport]] = {}
        for line in self._file.read_text().splitlines() if self._file.exists() else []:
            report = pytest.TestReport._from_json(json.loads(line))
            found.setdefault(report.nodeid, []).append(report)
        return found

    def close(self) -> None:
        self._kernel.kill()
        self._directory.cleanup()


def _lost(item: pytest.Item, said: str) -> pytest.TestReport:
    return pytest.TestReport(item.nodeid, item.location, {}, "failed", f"no report from inside:\n{said}", "call")
