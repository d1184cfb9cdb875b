"""What understanding verbs print: tables and colour for people, JSON or YAML for programs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from svcplane.understand.finding import Finding, Severity

OUTPUT = click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", help="Form of the answer."
)
SHOWN = 5
COLOURS = {Severity.PROBLEM: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


def console() -> Console:
    """Colour where a person looks on; lines are never cut."""
    made = Console(highlight=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = 200
    return made


def emit(value: Any, form: str) -> None:
    """A value for programs."""
    plain = msgspec.to_builtins(value)
    if form == "yaml":
        click.echo(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=160), nl=False)
    else:
        click.echo(msgspec.json.format(msgspec.json.encode(plain), indent=2).decode())


def show_findings(out: Console, findings: Iterable[Finding], *, none: str) -> None:
    """One line a finding, one its remedy; `none` where there is nothing to tell.  Of one code the first few."""
    told = Counter[str]()
    for finding in findings:
        told[finding.code] += 1
        if told[finding.code] > SHOWN:
            continue
        colour = COLOURS[finding.severity]
        word = finding.severity.upper().ljust(7)
        out.print(f"[{colour}]{word}[/{colour}]  [bold]{escape(finding.subject)}[/bold] {escape(finding.text)}")
        if finding.remedy:
            out.print(f"         [green]remedy:[/green] {escape(finding.remedy)}")
    for code, count in told.items():
        if count > SHOWN:
            out.print(f"         and {count - SHOWN} more of the kind {code}")
    if not told:
        out.print(f"[green]{escape(none)}[/green]")


def show_table(out: Console, title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Nothing where there are no rows."""
    found = [[escape(cell) for cell in row] for row in rows]
    if not found:
        return
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold", header_style="dim")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in found:
        table.add_row(*row)
    out.print()
    out.print(table)
