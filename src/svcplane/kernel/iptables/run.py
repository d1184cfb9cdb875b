"""The iptables tools in this network namespace: I/O only.

The host's default variant (alternatives) is used.  The tools wait for the xtables lock.
"""

import asyncio

from svcplane.base.errors import EnvironmentProblem, KernelError
from svcplane.base.net import Family
from svcplane.kernel.iptables.text import Tables, parse

LOCK_WAIT_S = 10


class IptablesTools:
    """`iptables-save` and `iptables-restore` of one family."""

    def __init__(self, family: Family) -> None:
        self._tool = "iptables" if family is Family.IPV4 else "ip6tables"

    async def save(self) -> Tables:
        return parse(await self._run(f"{self._tool}-save"))

    async def restore(self, text: str) -> None:
        """Each table of the text is taken as a whole or not at all.  Raises KernelError with the tool's reason."""
        await self._run(f"{self._tool}-restore", "--noflush", "-w", str(LOCK_WAIT_S), text=text)

    async def has_chain(self, table: str, chain: str) -> bool:
        try:
            await self._run(self._tool, "-w", str(LOCK_WAIT_S), "-t", table, "-S", chain)
        except KernelError:
            return False
        return True

    async def _run(self, *command: str, text: str = "") -> str:
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        except FileNotFoundError as error:
            raise EnvironmentProblem(f"the program {command[0]} is missing: apt-get install iptables") from error
        out, err = await process.communicate(text.encode())
        if process.returncode:
            raise KernelError(f"{command[0]}: {' '.join(err.decode(errors='replace').split()) or process.returncode}")
        return out.decode()
