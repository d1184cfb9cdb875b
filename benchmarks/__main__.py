"""Run groups of benchmarks and print their figures; exit status 1 where a limit is missed."""

import argparse
import importlib
import json
import pkgutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import uvloop
from rich.console import Console
from rich.table import Table

import benchmarks
from benchmarks.figures import Figure, Scale, shown
from svcplane.base.errors import SvcplaneError


def groups() -> dict[str, ModuleType]:
    """Every module that is a group, by name."""
    names = [info.name for info in pkgutil.iter_modules(benchmarks.__path__) if not info.name.startswith("_")]
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "TITLE") and hasattr(module, "run")}


def table(title: str, figures: Sequence[Figure], took_s: float) -> Table:
    made = Table(title=f"{title} ({took_s:.1f} s)", title_justify="left")
    for name, justify in (
        ("figure", "left"),
        ("value", "right"),
        ("must be", "right"),
        ("", "left"),
        ("ratio", "left"),
    ):
        made.add_column(name, justify=justify)  # type: ignore[arg-type]
    for figure in figures:
        limit = "" if figure.limit is None else f"{'>=' if figure.more else '<='} {shown(figure.limit)} {figure.unit}"
        verdict = "" if figure.limit is None else "[green]ok[/green]" if figure.holds else "[red]MISSED[/red]"
        floor = f"{shown(figure.floor)} {figure.unit}" if figure.floor is not None else ""
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f} x {figure.floor_name} ({floor})"
        made.add_row(figure.name, f"{shown(figure.value)} {figure.unit}", limit, verdict, ratio)
    return made


def main() -> int:
    known = groups()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=benchmarks.__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of: {', '.join(known)} (all if not said)")
    parser.add_argument("--tiny", action="store_true", help="so small that only the benchmarks are tested")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    if wrong := [name for name in options.groups if name not in known]:
        parser.error(f"no group {wrong[0]}; there are: {', '.join(known)}")
    console, scale = Console(width=150), Scale(options.tiny)
    found: dict[str, list[Figure]] = {}
    for name in options.groups or known:
        began = time.monotonic()
        try:
            found[name] = list(uvloop.run(known[name].run(scale)))
        except SvcplaneError as error:
            console.print(f"[red]{name}: {error}[/red]")
            return error.exit_status
        console.print(table(known[name].TITLE, found[name], time.monotonic() - began))
    if options.json:
        options.json.write_text(json.dumps({name: [asdict(f) for f in rows] for name, rows in found.items()}, indent=1))
    missed = sum(not figure.holds for rows in found.values() for figure in rows)
    if missed and not options.tiny:
        console.print(f"[red]{missed} limits were missed[/red]")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
