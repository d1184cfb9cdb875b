"""Listing and deleting tracked flows with the `conntrack` tool, in this network namespace."""

import asyncio
import ipaddress

from svcplane.base.errors import EnvironmentProblem, KernelError
from svcplane.base.net import Family
from svcplane.kernel.conntrack.text import Entry, parse


async def _conntrack(*arguments: str) -> tuple[int, str, str]:
    try:
        process = await asyncio.create_subprocess_exec(
            "conntrack", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise EnvironmentProblem("the program conntrack is missing: apt-get install conntrack") from error
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")


def _family(family: Family) -> str:
    return "ipv4" if family is Family.IPV4 else "ipv6"


async def flows(family: Family, protocol: str) -> list[Entry]:
    """Tracked flows of a protocol (`udp`, `tcp`), with canonical addresses."""
    status, out, err = await _conntrack("-L", "-f", _family(family), "-p", protocol)
    if status:
        raise KernelError(f"conntrack -L: {err.strip().splitlines()[-1] if err.strip() else status}")
    return [
        Entry(
            _canonical(entry.src),
            _canonical(entry.dst),
            entry.sport,
            entry.dport,
            _canonical(entry.reply_src),
            _canonical(entry.reply_dst),
            entry.reply_sport,
            entry.reply_dport,
        )
        for entry in parse(out)
    ]


def _canonical(address: str) -> str:
    return str(ipaddress.ip_address(address))


async def delete(family: Family, protocol: str, entry: Entry) -> None:
    """Forget one flow; one that is gone already is no error."""
    place = ("-s", entry.src, "-d", entry.dst, "--sport", str(entry.sport), "--dport", str(entry.dport))
    status, _, err = await _conntrack("-D", "-f", _family(family), "-p", protocol, *place)
    if status and "0 flow entries" not in err:
        raise KernelError(f"conntrack -D: {err.strip().splitlines()[-1] if err.strip() else status}")
