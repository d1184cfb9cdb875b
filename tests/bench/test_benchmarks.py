"""Each group of benchmarks runs, at a size at which its figures mean nothing."""

import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
import benchmarks  # noqa: E402
from benchmarks.figures import Figure, percentile  # noqa: E402

NEEDS_ROOT = frozenset({"lab", "proxy_nftables", "proxy_iptables"})


def names() -> list[str]:
    found = (info.name for info in pkgutil.iter_modules(benchmarks.__path__) if not info.name.startswith("_"))
    return [name for name in found if hasattr(importlib.import_module(f"benchmarks.{name}"), "TITLE")]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.root if name in NEEDS_ROOT else ()) for name in names()]
)
def test_group_runs_and_gives_figures(name: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", name, "--tiny", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text())[name]
    assert figures
    for figure in figures:
        # A delay may be none at all, a rate or a ratio may not.
        assert figure["value"] > 0 or (figure["value"] == 0 and not figure["more"]), figure
    assert any(figure["value"] > 0 for figure in figures)


def test_limits_are_judged_by_direction() -> None:
    assert Figure("time", 2.0, "ms", 3.0).holds
    assert not Figure("time", 4.0, "ms", 3.0).holds
    assert Figure("rate", 4.0, "/s", 3.0, more=True).holds
    assert not Figure("rate", 2.0, "/s", 3.0, more=True).holds


def test_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0
    assert percentile([7.0], 0.99) == 7.0
