"""The iptables tools in this network namespace: I/O only.

Two kernels' worth of tools exist, `nft` and `legacy`; rules of one are not seen by the other, so the variant the
host already uses is the one to use.
"""

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

from svcplane.base.errors import EnvironmentProblem, KernelError
from svcplane.base.net import Family
from svcplane.kernel.iptables.legacy import table_digest, table_info
from svcplane.kernel.iptables.text import Tables, parse, rule_count
from svcplane.kernel.nft.objects import Change, DeleteChain, DeleteTable, GenerationChanged, TableName
from svcplane.kernel.nft.run import NftSocket

LOCK = Path(os.environ.get("XTABLES_LOCKFILE") or "/run/xtables.lock")  # as iptables(8)
LOCK_WAIT_S = 5
LIBERAL = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal")
LOCALNET = Path("/proc/sys/net/ipv4/conf/all/route_localnet")
VARIANTS = ("nft", "legacy")
HINTS = ("KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY")  # a kubelet's, in table mangle: KEP-3178
TABLES = ("nat", "filter")
MADE_TABLES = ("mangle", *TABLES)  # where a plane may be the first to write
MADE = "SVCPLANE-MADE-TABLE"  # an empty chain: the table was not there before us
_RESOURCE_PROBLEM = 4  # exit status of the tools: the lock is held


class IptablesTools:
    """`iptables-save` and `iptables-restore` of one family and variant (`""`: as the host already uses)."""

    def __init__(self, family: Family, variant: str = "") -> None:
        self._family, self._asked = family, variant
        self._name = "iptables" if family is Family.IPV4 else "ip6tables"
        self.variant = variant
        self._socket: NftSocket | None = None

    async def choose(self) -> str:
        """Settle on a variant.  Raises EnvironmentProblem where the tools are missing."""
        if not self.variant:
            self.variant = await self._in_use()
        if self._tool("restore") is None:
            raise EnvironmentProblem(f"the program {self._name}-restore is missing: apt-get install iptables")
        return self.variant

    async def _in_use(self) -> str:
        found = {}
        for name, tools in self._each().items():
            with contextlib.suppress(KernelError):  # a kernel without nf_tables has no rules there
                found[name] = await tools.save()
        for name, tables in found.items():
            if any(hint in tables.get("mangle", {}) for hint in HINTS):
                return name
        sizes = {name: sum(rule_count(chains) for chains in tables.values()) for name, tables in found.items()}
        if sizes and max(sizes.values()):
            return max(sizes, key=lambda name: sizes[name])
        return "legacy" if "legacy" in await self._run(self._name, "--version") else "nft"

    def _each(self) -> dict[str, "IptablesTools"]:
        """The variants that are installed and may hold rules; asking legacy would load its kernel modules."""
        names = Path(f"/proc/net/{'ip' if self._family is Family.IPV4 else 'ip6'}_tables_names")
        try:
            legacy = bool(names.read_text().split())
        except OSError:  # the modules are not loaded, or it is the file of a user that this namespace does not have
            legacy = False
        tools = {name: IptablesTools(self._family, name) for name in VARIANTS if name != "legacy" or legacy}
        return {name: each for name, each in tools.items() if shutil.which(f"{self._name}-{name}-save")}

    def others(self) -> list["IptablesTools"]:
        """Tools of the other variants that may hold rules."""
        return [tools for name, tools in self._each().items() if name != self.variant]

    def _tool(self, verb: str) -> str | None:
        return shutil.which(f"{self._name}-{self.variant}-{verb}") or shutil.which(f"{self._name}-{verb}")

    async def save(self) -> Tables:
        return parse(await self._run(self._tool("save") or f"{self._name}-save"))

    async def restore(self, text: str, *, mark: bool = False) -> None:
        """Each table of the text is taken as a whole or not at all.  `mark`: mark a table that this makes for `tidy`.

        Raises KernelError with the tool's reason; where the xtables lock is held, with the name of its holder.
        """
        tool = self._tool("restore") or f"{self._name}-restore"
        if mark and self.variant == "nft":
            text = await self._marked(text)
        await self._run(tool, "--noflush", "-w", str(LOCK_WAIT_S), text=text)

    async def fingerprint(self) -> object:
        """Cheap at any size; differs when somebody added, removed or flushed rules.

        nft: the generation of nf_tables, which any change moves.  legacy: number and size of the entries and where
        the hooks begin, of each table; an edit that keeps all of these is seen by `digest`.
        """
        if self.variant == "nft":
            await self._nft.listen()
            return await self._nft.generation()
        return tuple(table_info(self._family, table) for table in TABLES)

    async def concerns_others(self, since: object, until: object) -> bool:
        """Whether all that moved the fingerprint is known to be in tables that are not iptables' own."""
        if self.variant != "nft" or not isinstance(since, int) or not isinstance(until, int):
            return False
        names = [TableName(self._family, table) for table in TABLES]
        return all([await self._nft.unchanged(name, since, until) for name in names])

    @property
    def _nft(self) -> NftSocket:
        self._socket = self._socket or NftSocket()
        return self._socket

    async def digest(self) -> object:
        """All of our tables but the counters, where the fingerprint may miss an edit; None where it does not.

        Costs some microseconds a rule.
        """
        if self.variant == "nft":
            return None
        return await asyncio.to_thread(lambda: tuple(table_digest(self._family, table) for table in TABLES))

    async def _marked(self, text: str) -> str:
        """The tools make a table of nf_tables with its first rule: say in it that it was us."""
        there = {name.name for name in await self._nft.tables() if name.family is self._family}
        for table in MADE_TABLES:
            if table not in there:
                text = text.replace(f"*{table}\n", f"*{table}\n:{MADE} - [0:0]\n")
        return text

    async def tidy(self) -> None:
        """Delete the tables that we made, where nothing but empty built-in chains is left in them.

        A table that another mode of ours still uses is left to that.  Tables of the legacy variant are the kernel's
        own, and stay.
        """
        if self.variant != "nft":
            return
        for table in (TableName(self._family, name) for name in MADE_TABLES):
            generation = await self._nft.generation()
            content = await self._nft.read(table, elements=False)
            if content is None or MADE not in content.chains:
                continue
            others = [chain for name, chain in content.chains.items() if name != MADE]
            if any(chain.name.startswith("SVCPLANE-") or chain.name == "KUBE-SERVICES" for chain in others):
                continue
            used = content.sets or any(content.rules.values()) or any(c.hook is None or c.drops for c in others)
            changes: list[Change] = [DeleteChain(MADE)]
            if not used:
                changes += [*(DeleteChain(chain.name) for chain in others), DeleteTable(empty=True)]
            with contextlib.suppress(GenerationChanged):  # somebody is at work: it may be his by now
                await self._nft.commit(table, tuple(changes), generation)

    def tcp_be_liberal(self) -> bool:
        """Whether conntrack takes packets out of window as valid, so that INVALID ones need no drop."""
        return LIBERAL.exists() and LIBERAL.read_text().strip() == "1"

    def allow_localnet(self) -> None:
        """Let node ports answer on 127.0.0.1; whoever asks for it must close what that opens from outside."""
        try:
            if LOCALNET.read_text().strip() != "1":
                LOCALNET.write_text("1")
        except OSError as error:
            raise EnvironmentProblem(f"{LOCALNET}: {error.strerror}; node ports on localhost need it") from error

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def _run(self, *command: str, text: str = "") -> str:
        pipe = asyncio.subprocess.PIPE
        # a file in memory, not a pipe: the tool may end before it has read everything
        with open(os.memfd_create("iptables-restore"), "w+b") as source:
            source.write(text.encode())
            source.seek(0)
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=source,
                    stdout=pipe,
                    stderr=pipe,
                    start_new_session=True,  # a Ctrl-C is for us: it finishes what it began
                )
            except FileNotFoundError as error:
                raise EnvironmentProblem(f"the program {command[0]} is missing: apt-get install iptables") from error
            out, err = await process.communicate()
        if process.returncode:
            reason = " ".join(err.decode(errors="replace").split()) or f"exit status {process.returncode}"
            if process.returncode == _RESOURCE_PROBLEM and (holder := lock_holder()):
                reason = f"the xtables lock {LOCK} is held by {holder}: {reason}"
            raise KernelError(f"{Path(command[0]).name}: {reason}")
        return out.decode()


def lock_holder() -> str:
    """Who holds the xtables lock, as `name (pid N)`; empty where nobody does or it cannot be told."""
    try:
        inode = os.stat(LOCK).st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if "->" not in fields and fields[5].endswith(f":{inode}"):
                pid = int(fields[4])
                name = Path(f"/proc/{pid}/comm").read_text().strip() if pid > 0 else "a process outside this container"
                return f"{name} (pid {pid})"
    except (OSError, ValueError, IndexError):
        pass
    return ""
