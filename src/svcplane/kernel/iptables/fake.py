"""An iptables in memory: what the tools would do with the text they are given.

Source: iptables-restore(8) with --noflush: a table's part is taken as a whole or not at all.
"""

from svcplane.base.errors import KernelError
from svcplane.kernel.iptables.rule import read_rule
from svcplane.kernel.iptables.text import Tables

BUILT_IN = {
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
}
TARGETS = frozenset({"", "ACCEPT", "DROP", "RETURN", "REJECT", "DNAT", "MASQUERADE", "SNAT", "MARK", "REDIRECT"})


class FakeIptables:
    """`tables` may be edited by a test, as somebody else would edit the kernel's; `restores` counts transactions."""

    def __init__(self) -> None:
        self.tables: Tables = {table: dict.fromkeys(chains, ()) for table, chains in BUILT_IN.items()}
        self.restores: list[str] = []
        self.variant = "fake"

    async def save(self) -> Tables:
        return {table: dict(chains) for table, chains in self.tables.items()}

    async def restore(self, text: str, *, mark: bool = False) -> None:
        for part in text.split("COMMIT\n"):
            if part.strip():
                table, chains = _applied(part.splitlines(), self.tables)
                self.tables[table] = chains
                self.restores.append(part)

    async def fingerprint(self) -> object:
        return {table: dict(chains) for table, chains in self.tables.items()}

    async def concerns_others(self, since: object, until: object) -> bool:
        return False

    async def tidy(self) -> None:
        return

    async def digest(self) -> object:
        return None

    async def choose(self) -> str:
        return self.variant

    async def close(self) -> None:
        return

    def others(self) -> list["FakeIptables"]:
        return []

    def tcp_be_liberal(self) -> bool:
        return False

    def allow_localnet(self) -> None:
        return


def _applied(lines: list[str], tables: Tables) -> tuple[str, dict[str, tuple[str, ...]]]:
    table = lines[0].removeprefix("*")
    chains = dict(tables[table])
    for line in lines[1:]:
        verb, _, rest = line.partition(" ")
        name, _, rule = rest.partition(" ")
        if line.startswith(":"):
            chains[line[1:].split()[0]] = ()
        elif verb in ("-A", "-I", "-D"):
            if name not in chains:
                raise KernelError(f"iptables-restore: no chain {name}")
            present = chains[name]
            if verb == "-D" and rule not in present:
                raise KernelError(f"iptables-restore: no such rule in {name}: {rule}")
            left = list(present)
            if verb == "-D":
                left.remove(rule)
            chains[name] = tuple(left) if verb == "-D" else (*present, rule) if verb == "-A" else (rule, *present)
        elif verb == "-X":
            if chains.pop(name, None) != ():
                raise KernelError(f"iptables-restore: chain {name} is missing or not empty")
    for chain, rules in chains.items():
        for rule in rules:
            target = read_rule(rule).target
            if target not in TARGETS and target not in chains:
                raise KernelError(f"iptables-restore: {chain} jumps to {target}, which does not exist")
    return table, chains
