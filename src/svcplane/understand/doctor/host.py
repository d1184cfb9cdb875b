"""Permissions, tools, kernel features, the clock.  Pure."""

import re
from collections.abc import Iterable

from svcplane.understand.doctor.examined import Examined
from svcplane.understand.finding import Finding, Severity

#: (tool, Debian package, modes that cannot do without, what is lost elsewhere)
TOOLS = (
    ("ip", "iproute2", ("nftables", "iptables", "ipvs", "userspace"), ""),
    ("iptables", "iptables", ("iptables",), ""),
    ("conntrack", "conntrack", (), "stale UDP flows are not removed, and `svcplane top` has nothing to count"),
    ("nft", "nftables", (), "other people's rules cannot be read"),
)
FEATURES = {
    "nf_tables": ("nftables", "load it (modprobe nf_tables), or choose another --proxy-mode"),
    "ip_vs": ("ipvs", "load it (modprobe ip_vs), or choose another --proxy-mode"),
    "nf_conntrack": ("", "load it (modprobe nf_conntrack); translation needs it"),
}
OLDEST_NFTABLES = (5, 13)  # KEP-3866
SKEW_WARNS_S, SKEW_BREAKS_S = 5.0, 300.0


def check(seen: Examined) -> Iterable[Finding]:
    facts = seen.facts
    if "NET_ADMIN" not in facts.capabilities:
        text = "this user may not read or change packet filter rules: the capability NET_ADMIN is missing"
        yield Finding("no-permission", Severity.PROBLEM, "permissions", text, "run this as root (sudo)")
    for tool, package, needed, lost in TOOLS:
        if tool in facts.tools:
            continue
        if seen.mode in needed:
            text = f"the program {tool} is missing; mode {seen.mode} cannot do without it"
            yield Finding("tool-missing", Severity.PROBLEM, tool, text, f"apt-get install {package}")
        elif lost:
            text = f"the program {tool} is missing: {lost}"
            yield Finding("tool-missing", Severity.WARNING, tool, text, f"apt-get install {package}")
    for feature, why in facts.lacking.items():
        mode, remedy = FEATURES.get(feature, ("-", ""))
        if mode in ("", seen.mode):
            yield Finding("kernel-feature", Severity.PROBLEM, feature, f"cannot be used: {why}", remedy)
    yield from _release(seen)
    yield from _clock(seen)


def _release(seen: Examined) -> Iterable[Finding]:
    numbers = re.match(r"(\d+)\.(\d+)", seen.facts.release)
    if seen.mode != "nftables" or numbers is None:
        return
    found = (int(numbers[1]), int(numbers[2]))
    if found < OLDEST_NFTABLES:
        text = f"kernel {seen.facts.release} is older than 5.13, from which on nftables mode is known to work"
        yield Finding("kernel-old", Severity.WARNING, "kernel", text, "use --proxy-mode iptables, or a newer kernel")


def _clock(seen: Examined) -> Iterable[Finding]:
    ahead = seen.clock_ahead_s
    if ahead is not None and abs(ahead) >= SKEW_WARNS_S:
        way = "ahead of" if ahead > 0 else "behind"
        text = f"this host's clock is {abs(ahead):.0f} s {way} the API server's"
        severity = Severity.PROBLEM if abs(ahead) >= SKEW_BREAKS_S else Severity.WARNING
        remedy = "synchronize both clocks (chrony, systemd-timesyncd); certificates and Leases depend on them"
        yield Finding("clock-skew", severity, "clock", text, remedy)
    elif ahead is None and seen.facts.clock_synchronized is False:
        text = "the kernel does not know this host's clock to be synchronized"
        yield Finding("clock-unsynchronized", Severity.NOTE, "clock", text, "run chrony or systemd-timesyncd")
