"""Everybody's packet filter rules of this network namespace, as values: read, never written.

objects   chains, rules and matches                    PURE
nft       `nft -j list ruleset`                        PURE
xtables   `iptables-save`                              PURE
run       runs the tools                               I/O
"""
