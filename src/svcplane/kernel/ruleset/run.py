"""Reads everybody's rules with `nft` and `iptables-save`, of both kinds of iptables.  I/O only."""

import asyncio

import msgspec

from svcplane.kernel.ruleset import nft, xtables
from svcplane.kernel.ruleset.objects import ForeignChain, Ruleset

_XTABLES = (
    ("iptables-nft-save", "ip"),
    ("ip6tables-nft-save", "ip6"),
    ("iptables-legacy-save", "ip"),
    ("ip6tables-legacy-save", "ip6"),
)


async def read() -> Ruleset:
    """Whatever can be read; what cannot is named in `unread`."""
    chains: dict[tuple[str, str, str], ForeignChain] = {}
    unread: list[str] = []
    through_nft: set[tuple[str, str]] = set()
    for tool, family in _XTABLES:
        text, problem = await _output(tool)
        if problem:
            if "legacy" not in tool:  # old tools are missing on most hosts, and then have no rules
                unread.append(problem)
            continue
        found = xtables.parse(text.decode(errors="replace"), family)
        if "-nft-" in tool:
            through_nft |= {(family, table) for _, table, _ in found}
            chains |= found
        else:
            chains |= {(f, f"{table} (legacy)", name): chain for (f, table, name), chain in _legacy(found).items()}
    text, problem = await _output("nft", "-j", "list", "ruleset")
    if problem:
        unread.append(problem)
    else:
        try:
            chains |= nft.parse(text, through_nft)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            unread.append(f"nft -j list ruleset: {error}")
    return Ruleset(chains, tuple(unread))


def _legacy(found: dict[tuple[str, str, str], ForeignChain]) -> dict[tuple[str, str, str], ForeignChain]:
    """Old and new iptables have tables of the same names: those of the old say so."""
    return {
        place: ForeignChain(c.family, f"{c.table} (legacy)", c.name, c.hook, c.priority, c.policy, c.rules)
        for place, c in found.items()
    }


async def _output(*command: str) -> tuple[bytes, str]:
    """What a tool prints, or why it does not."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    except FileNotFoundError:
        return b"", f"the program {command[0]} is missing"
    out, err = await process.communicate()
    if process.returncode:
        said = err.decode(errors="replace").strip().splitlines()
        return b"", f"{command[0]}: {said[-1] if said else process.returncode}"
    return out, ""
