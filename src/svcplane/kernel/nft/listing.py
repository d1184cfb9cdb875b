"""The rules of a table as the `nft` tool prints them, by chain: text for people, never parsed further."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence

from svcplane.base.errors import EnvironmentProblem, KernelError
from svcplane.base.net import Family
from svcplane.kernel.nft.objects import TableContent, TableName

_FAMILY = {Family.IPV4: "ip", Family.IPV6: "ip6"}


async def listed(table: TableName) -> dict[str, list[str]]:
    """Nothing where there is no such table.  Raises EnvironmentProblem without the tool, KernelError where it fails."""
    pipe = asyncio.subprocess.PIPE
    command = ("nft", "-t", "list", "table", _FAMILY[table.family], table.name)  # -t: without the elements of sets
    try:
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    except FileNotFoundError as error:
        raise EnvironmentProblem("the program nft is missing: apt-get install nftables") from error
    out, err = await process.communicate()
    if process.returncode:
        said = err.decode(errors="replace").strip()
        if "No such file" in said:
            return {}
        raise KernelError(f"nft list table: {said.splitlines()[0] if said else process.returncode}")
    return chains(out.decode(errors="replace"))


def commented(content: TableContent, texts: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, str]]:
    """Chain, text and comment of each rule of a table; `texts` is what `listed` gave, without which a rule is its
    comment."""
    for name in content.chains:
        for line in texts.get(name) or (rule.comment for rule in content.rules.get(name, ())):
            text, _, comment = line.partition(" comment ")
            yield name, text, comment.strip('"')


def chains(text: str) -> dict[str, list[str]]:
    """A listing's rules by chain, the line of a base chain (its hook and policy) among them."""
    found: dict[str, list[str]] = {}
    rules: list[str] | None = None
    for line in map(str.strip, text.splitlines()):
        if line.startswith("chain ") and line.endswith("{"):
            rules = found.setdefault(line.split()[1], [])
        elif line == "}":
            rules = None
        elif rules is not None and line:
            rules.append(line)
    return found
