"""The kernel parameters of ipvs mode.  Pure.  Source: Documentation/networking/ipvs-sysctl.rst."""

import re

from svcplane.base.net import Family
from svcplane.kernel.sysctl import Parameter
from svcplane.proxy.planes.ipvs.policy import Options, options

VS = "net/ipv4/vs/"
CONNTRACK = f"{VS}conntrack"


def parameters(options: Options, family: Family, release: str) -> dict[str, str]:
    """Name -> value.  `release` is the kernel's, as uname has it."""
    # 4.1 to 5.8 answer a reused client port a second late in mode 1; older and newer ones do not
    numbers = re.match(r"(\d+)\.(\d+)", release)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    found = {
        CONNTRACK: "1",  # or masquerading would not know these connections
        f"{VS}conn_reuse_mode": "0" if (4, 1) <= version < (5, 9) else "1",
        f"{VS}expire_nodest_conn": "1",  # a client whose endpoint went is sent to another, not nowhere
        f"{VS}expire_quiescent_template": "1",  # affinity does not hold to an endpoint that drains
    }
    if family is Family.IPV4:
        found["net/ipv4/ip_forward"] = "1"
        if options.strict_arp:
            found |= {"net/ipv4/conf/all/arp_ignore": "1", "net/ipv4/conf/all/arp_announce": "2"}
    return found


def ahead(flags: tuple[tuple[str, str], ...], release: str) -> list[Parameter]:
    """The same for both families, for who may set them before the proxy starts.  Raises ConfigError naming the flag."""
    found = parameters(options(flags), Family.IPV4, release)  # those of IPv6 are among them
    return [Parameter(f"proc/sys/{name}", int(value)) for name, value in found.items()]
