"""The package that people install: everything that is not code is in it, and it works away from the sources."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "svcplane"
CHECK = """
import importlib.metadata, sys
import svcplane
assert svcplane.__file__.startswith(sys.argv[1]), svcplane.__file__
from svcplane.dashboard.assets import asset
page = asset("index.html")
assert page is not None and b"main.js" in page.body
from svcplane.api.schema import fields_of
from svcplane.cli.main import VERBS, cli
import click
context = click.Context(cli)
assert [name for name in VERBS if cli.get_command(context, name) is None] == []
import svcplane.testing.plugin
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build writes beside the sources."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tree / name)
    shutil.copytree(SOURCE, tree / "src" / "svcplane", ignore=shutil.ignore_patterns("__pycache__"))
    argv = ["pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([sys.executable, "-m", *argv, "-w", str(tree / "dist"), str(tree)], check=True, timeout=100)
    [made] = (tree / "dist").glob("*.whl")
    return made


def test_all_files_are_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(path.relative_to(SOURCE.parent))
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted - names == set()


def test_metadata_has_the_readme_the_command_and_the_plugin(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    [metadata] = [name for name in archive.namelist() if name.endswith("/METADATA")]
    text = archive.read(metadata).decode()
    assert "Description-Content-Type: text/markdown" in text
    assert (ROOT / "README.md").read_text().splitlines()[2] in text
    entries = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert "svcplane = svcplane.cli.main:main" in entries
    assert "[pytest11]" in entries


def test_it_works_away_from_the_sources(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    argv = [sys.executable, "-c", CHECK, str(tmp_path)]
    done = subprocess.run(
        argv, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
