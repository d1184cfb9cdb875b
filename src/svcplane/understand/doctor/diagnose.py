"""All checks of a node, the worst first.  Pure."""

from svcplane.understand.doctor import host, network, proxy, rivals
from svcplane.understand.doctor.examined import Examined
from svcplane.understand.finding import Finding, worst_first


def diagnose(seen: Examined) -> tuple[Finding, ...]:
    checks = (proxy.check, rivals.check, host.check, network.check)
    return worst_first(finding for check in checks for finding in check(seen))
