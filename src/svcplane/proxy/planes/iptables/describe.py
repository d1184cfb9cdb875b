"""What the chains hold, each rule with what it is for.  Pure."""

import re
from collections.abc import Iterator

from svcplane.kernel.iptables.text import Tables
from svcplane.proxy.plane import LiveRule
from svcplane.proxy.planes.iptables.names import OURS

CHAINS = (
    ("KUBE-(SVC|SVL)-", "chooses an endpoint of a Service port"),
    ("KUBE-EXT-", "what comes from outside to a Service port"),
    ("KUBE-FW-|KUBE-PROXY-FIREWALL|KUBE-FWL-", "source ranges of a load balancer"),
    ("KUBE-SEP-", "translates to one endpoint"),
    ("KUBE-SERVICES|KUBE-NET-", "finds the Service of an address"),
    ("KUBE-NODEPORTS|KUBE-NP-", "finds the Service of a node port"),
    ("KUBE-HAIRPIN|KUBE-HP-", "masquerades a Pod that reaches itself through a Service"),
    ("KUBE-REJ-|KUBE-XRJ-|KUBE-XNP-|KUBE-EXTERNAL", "refuses or drops what no endpoint is for"),
    ("KUBE-HC-", "lets health checks in"),
    ("KUBE-MARK-MASQ", "has postrouting masquerade the connection"),
    ("KUBE-POSTROUTING", "masquerades what was marked"),
    ("KUBE-FORWARD", "lets through what belongs to Services"),
    ("KUBE-PROXY-LOCALNET", "closes node ports on localhost to others"),
    ("KUBE-PROXY-CLOCK", "keeps the time of session affinity"),
    ("KUBE-PROXY-CANARY", "shows that nobody has flushed the rules"),
)
_COMMENT = re.compile(r'-m comment --comment ("[^"]*"|\S+) ?')
_OWNER = re.compile(r"^[a-z0-9-]+/[a-z0-9-]+(:\S+)?")


def live_rules(tables: Tables) -> Iterator[LiveRule]:
    """Of our chains, and the jumps to them out of the kernel's."""
    for table, chains in tables.items():
        owners = _owners(chains)
        for chain, rules in chains.items():
            ours = bool(OURS.match(chain))
            for rule in rules:
                target = _target(rule)
                if not ours and not OURS.match(target):
                    continue
                comment = (_COMMENT.search(rule) or [""])[0]
                said = comment.removeprefix("-m comment --comment ").strip().strip('"')
                owner = _OWNER.match(said)
                service = owner[0] if owner else owners.get(chain) or owners.get(target, "")
                words = said or _purpose(chain if ours else target)
                yield LiveRule(f"{table} {chain}", _COMMENT.sub("", rule), words, service)


def _owners(chains: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Chains of Service ports by what leads to them says."""
    found: dict[str, str] = {}
    for rules in chains.values():
        for rule in rules:
            comment = _COMMENT.search(rule)
            owner = _OWNER.match(comment[1].strip('"')) if comment else None
            if owner and OURS.match(_target(rule)):
                found.setdefault(_target(rule), owner[0])
    return found


def _target(rule: str) -> str:
    found = re.search(r"-[jg] (\S+)", rule)
    return found[1] if found else ""


def _purpose(chain: str) -> str:
    return next((words for pattern, words in CHAINS if re.match(pattern, chain)), "")
