"""Listing and deleting tracked flows with the `conntrack` tool, in this network namespace."""

import asyncio
import contextlib
import ipaddress
import re

from svcplane.base.errors import EnvironmentProblem, KernelError
from svcplane.base.net import Family
from svcplane.kernel.conntrack.text import Counted, Entry, parse, parse_counted

_DELETED = re.compile(r"(\d+) flow entries have been deleted")


async def _conntrack(*arguments: str) -> tuple[int, str, str]:
    try:
        process = await asyncio.create_subprocess_exec(
            "conntrack",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is for us: it finishes what it began
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


async def delete(family: Family, protocol: str, to: tuple[str, int], answered_by: tuple[str, int]) -> int:
    """Forget all flows to an address and port that another answers for; how many.  None there is no error."""
    original = ("-d", to[0], "--dport", str(to[1]))
    reply = ("-r", answered_by[0], "--reply-port-src", str(answered_by[1]))
    status, _, err = await _conntrack("-D", "-f", _family(family), "-p", protocol, *original, *reply)
    count = _DELETED.search(err)
    if count is None or (status and int(count[1])):
        raise KernelError(f"conntrack -D: {err.strip().splitlines()[-1] if err.strip() else status}")
    return int(count[1])


async def counted(family: Family) -> list[Counted]:
    """All tracked flows with ports, and what went over them."""
    status, out, err = await _conntrack("-L", "-f", _family(family))
    if status:
        raise KernelError(f"conntrack -L: {err.strip().splitlines()[-1] if err.strip() else status}")
    return parse_counted(out)


async def new_flows(family: Family, seconds: float) -> list[Counted]:
    """Flows that begin within the next `seconds`."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            "conntrack", "-E", "-e", "NEW", "-f", _family(family), stdout=pipe, stderr=pipe
        )
    except FileNotFoundError as error:
        raise EnvironmentProblem("the program conntrack is missing: apt-get install conntrack") from error
    reading = asyncio.ensure_future(process.communicate())
    try:
        done, _ = await asyncio.wait((reading,), timeout=seconds)
        if done:
            said = reading.result()[1].decode(errors="replace").strip()
            raise KernelError(f"conntrack -E: {said.splitlines()[-1] if said else process.returncode}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    return parse_counted((await reading)[0].decode(errors="replace"))
