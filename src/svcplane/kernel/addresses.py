"""Addresses of this network namespace's interfaces, from the kernel's own listing."""

import asyncio
import ipaddress

import msgspec

from svcplane.base.errors import EnvironmentProblem, KernelError
from svcplane.base.net import Family


async def local_addresses() -> dict[Family, tuple[str, ...]]:
    """All addresses by family, loopback included, in the kernel's order."""
    try:
        process = await asyncio.create_subprocess_exec(
            "ip", "-json", "address", "show", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise EnvironmentProblem("the program ip is missing: apt-get install iproute2") from error
    out, err = await process.communicate()
    if process.returncode:
        raise KernelError(f"ip address show: {err.decode(errors='replace').strip()}")
    found: dict[Family, list[str]] = {Family.IPV4: [], Family.IPV6: []}
    for link in msgspec.json.decode(out):
        for entry in link.get("addr_info", ()):
            address = ipaddress.ip_address(entry["local"])
            found[Family(address.version)].append(str(address))
    return {family: tuple(dict.fromkeys(addresses)) for family, addresses in found.items()}
