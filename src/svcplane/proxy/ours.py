"""Which rules of a kernel are of this proxy, in any of its modes.  Pure."""

from svcplane.kernel.ruleset.objects import ForeignChain

#: nftables tables of the modes that have one of their own.
TABLES = ("svcplane", "svcplane-userspace")
#: What the names of all other modes' chains, in iptables' tables, begin with; kube-proxy's begin so, too.
CHAINS = ("KUBE-", "SVCPLANE-")


def may_be_ours(chain: ForeignChain) -> bool:
    """Whether a chain may belong to a proxy of ours, of any mode."""
    return chain.table in TABLES or chain.name.startswith(CHAINS)
