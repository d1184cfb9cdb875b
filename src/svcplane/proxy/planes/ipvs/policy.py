"""How a service port is balanced: flags of the proxy, and annotations of the Service over them.  Pure.

Annotations: `svcplane.dev/ipvs-scheduler` (a name of the kernel's), `svcplane.dev/ipvs-weight` (1 to 65535, of each
endpoint; for `ovf` an endpoint takes one connection more than that before the next gets any),
`svcplane.dev/ipvs-persistence-prefix` (for IPv4, or `24,64` for both families),
`svcplane.dev/ipvs-drain-timeout` (seconds a removed endpoint may finish its TCP connections; 0: they end at once).
"""

from dataclasses import dataclass

from svcplane.base.errors import ConfigError
from svcplane.base.net import Family, canonical_cidr
from svcplane.kernel.ipvs.objects import BY_PORT, FALLBACK, MAX_WEIGHT, SCHEDULERS, Timeouts
from svcplane.proxy.model import ServicePort

PREFIX = "svcplane.dev/ipvs-"
SCHEDULER, WEIGHT = f"{PREFIX}scheduler", f"{PREFIX}weight"
MASK, DRAIN = f"{PREFIX}persistence-prefix", f"{PREFIX}drain-timeout"
DEFAULT_DRAIN_S = 900.0
#: `ovf` gives an endpoint no more connections than its weight: without a choice of the Service, all that fit.
OVERFLOW_WEIGHT = MAX_WEIGHT


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator chose for the mode."""

    scheduler: str = "rr"
    strict_arp: bool = False
    exclude_cidrs: tuple[str, ...] = ()
    timeouts: Timeouts = Timeouts()
    drain_s: float = DEFAULT_DRAIN_S


@dataclass(frozen=True, slots=True)
class Choice:
    """For one service port.  `problems`: annotations that say nothing usable, for people."""

    scheduler: str
    weight: int
    prefix: int | None
    drain_s: float
    problems: tuple[str, ...] = ()

    @property
    def flags(self) -> int:
        return flags_of(self.scheduler)


def flags_of(scheduler: str) -> int:
    """`mh` hashes the client's port too, as kube-proxy has it: clients behind one address are spread."""
    # without FALLBACK, a client that hashes to a draining endpoint is refused instead of sent to another
    return {"sh": FALLBACK, "mh": FALLBACK | BY_PORT}.get(scheduler, 0)


def seconds(text: str) -> float | None:
    """`90`, `90s`, `15m`, `1h30m`, as Go writes durations, or None."""
    total, number = 0.0, ""
    for letter in text:
        if letter.isdigit() or letter == ".":
            number += letter
        elif letter in "hms" and number:
            total += float(number) * {"h": 3600, "m": 60, "s": 1}[letter]
            number = ""
        else:
            return None
    try:
        return total + (float(number) if number else 0.0) if text else None
    except ValueError:
        return None


def options(flags: tuple[tuple[str, str], ...]) -> Options:
    """From the proxy's `--ipvs-*` flags by name.  Raises ConfigError naming the flag."""
    given = dict(flags)
    scheduler = given.get("ipvs-scheduler") or "rr"
    if scheduler not in SCHEDULERS:
        raise ConfigError(f"--ipvs-scheduler {scheduler}: must be one of {', '.join(SCHEDULERS)}")
    excluded = []
    for text in filter(None, (part.strip() for part in given.get("ipvs-exclude-cidrs", "").split(","))):
        cidr = canonical_cidr(text)
        if cidr is None:
            raise ConfigError(f"--ipvs-exclude-cidrs {text}: must be a CIDR such as 10.0.0.0/8")
        excluded.append(cidr)

    def duration(name: str, default: float) -> float:
        text = given.get(name, "")
        found = seconds(text) if text else default
        if found is None or found > 31 * 86400:
            raise ConfigError(f"--{name} {text}: must be a duration of at most 744h, such as 900s or 15m")
        return found

    timeouts = (int(duration(f"ipvs-{name}-timeout", 0)) for name in ("tcp", "tcpfin", "udp"))
    strict = given.get("ipvs-strict-arp", "").lower() == "true"
    drain = duration("ipvs-drain-timeout", DEFAULT_DRAIN_S)
    return Options(scheduler, strict, tuple(excluded), Timeouts(*timeouts), drain)


def choose(port: ServicePort, chosen: Options, family: Family) -> Choice:
    """Flags and annotations together.  What an annotation says wrongly falls back to the flags."""
    given = dict(port.annotations)
    problems = []
    scheduler, weight, drain_s = chosen.scheduler, 1, chosen.drain_s
    if text := given.get(SCHEDULER, ""):
        if text in SCHEDULERS:
            scheduler = text
        else:
            problems.append(f"{SCHEDULER}: {text}: must be one of {', '.join(SCHEDULERS)}")
    if scheduler == "ovf":
        weight = OVERFLOW_WEIGHT
    if text := given.get(WEIGHT, ""):
        if text.isdigit() and 1 <= int(text) <= MAX_WEIGHT:
            weight = int(text)
        else:
            problems.append(f"{WEIGHT}: {text}: must be between 1 and {MAX_WEIGHT}")
    if text := given.get(DRAIN, ""):
        found = seconds(text)
        if found is None:
            problems.append(f"{DRAIN}: {text}: must be a duration such as 90s or 15m")
        else:
            drain_s = found
    prefix = None
    if text := given.get(MASK, ""):
        prefix, problem = _prefix(text, family)
        problems += [problem] if problem else []
    return Choice(scheduler, weight, prefix, drain_s, tuple(problems))


def _prefix(text: str, family: Family) -> tuple[int | None, str]:
    """The part for this family; None is a whole address."""
    bits = 128 if family is Family.IPV6 else 32
    parts = [part.strip() for part in text.split(",")]
    mine = parts[0] if family is Family.IPV4 else (parts[1] if len(parts) > 1 else "")
    if not mine or mine == str(bits):
        return None, ""
    if len(parts) > 2 or not mine.isdigit() or not 1 <= int(mine) <= bits:
        return None, f"{MASK}: {text}: must be the bits for IPv4, or for both families such as 24,64"
    return int(mine), ""
