"""Which way this network namespace sends a packet, by the kernel's own answer."""

import asyncio
from dataclasses import dataclass

import msgspec

from svcplane.base.errors import EnvironmentProblem, KernelError


@dataclass(frozen=True, slots=True)
class Way:
    """`source`: the address the kernel would choose; `interface`: where the packet leaves; `kind` e.g. `local`."""

    source: str
    interface: str
    via: str = ""
    kind: str = ""


async def way_to(ip: str) -> Way | None:
    """None where there is no route."""
    try:
        process = await asyncio.create_subprocess_exec(
            "ip", "-json", "route", "get", ip, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise EnvironmentProblem("the program ip is missing: apt-get install iproute2") from error
    out, err = await process.communicate()
    if process.returncode:
        said = err.decode(errors="replace").strip()
        if "unreachable" in said.lower() or "no route" in said.lower():
            return None
        raise KernelError(f"ip route get {ip}: {said.splitlines()[-1] if said else process.returncode}")
    found = msgspec.json.decode(out)
    if not found:
        return None
    entry = found[0]
    return Way(entry.get("prefsrc", ""), entry.get("dev", ""), entry.get("gateway", ""), entry.get("type", ""))
