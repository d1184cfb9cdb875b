"""iptables-save text in, iptables-restore text out.  Pure.

Content is table -> chain -> rules; a rule is what follows `-A CHAIN `, in the spelling of who wrote it.
"""

from collections.abc import Iterable, Mapping

Tables = dict[str, dict[str, tuple[str, ...]]]


def parse(saved: str) -> Tables:
    """Read `iptables-save` output; comments, policies and counters are left out."""
    tables: dict[str, dict[str, list[str]]] = {}
    chains: dict[str, list[str]] = {}
    for line in saved.splitlines():
        if line.startswith("*"):
            chains = tables.setdefault(line[1:], {})
        elif line.startswith(":"):
            chains.setdefault(line[1:].split()[0], [])
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            chains.setdefault(chain, []).append(rule)
    return {table: {chain: tuple(rules) for chain, rules in found.items()} for table, found in tables.items()}


def restore(
    table: str, write: Mapping[str, Iterable[str]], lines: Iterable[str] = (), delete: Iterable[str] = ()
) -> str:
    """Input for `iptables-restore --noflush`: each chain of `write` is replaced, `lines` are run as they are,
    and the chains of `delete` are emptied and removed."""
    doomed = tuple(delete)
    out = [f"*{table}"]
    out += [f":{chain} - [0:0]" for chain in (*write, *doomed)]
    for chain, rules in write.items():
        out += [f"-A {chain} {rule}" for rule in rules]
    out += lines
    out += [f"-X {chain}" for chain in doomed]
    return "\n".join([*out, "COMMIT", ""])
