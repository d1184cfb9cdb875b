"""Addresses of a network namespace as /proc/PID/net tells them.  Pure.

Source: Linux net/ipv4/fib_trie.c (fib_trie_seq_show), net/ipv6/addrconf.c (if6_seq_show).
"""

import ipaddress
import re

_LEAF = re.compile(r"^\s*\|-- (\d+\.\d+\.\d+\.\d+)$")


def local_ipv4(fib_trie: str) -> frozenset[str]:
    """The leaves that are `host LOCAL`."""
    found, leaf = set(), ""
    for line in fib_trie.splitlines():
        matched = _LEAF.match(line)
        if matched:
            leaf = matched[1]
        elif "host LOCAL" in line and leaf:
            found.add(leaf)
    return frozenset(found)


def local_ipv6(if_inet6: str) -> frozenset[str]:
    """The first column: 32 hex digits."""
    words = (line.split()[0] for line in if_inet6.splitlines() if line.strip())
    return frozenset(str(ipaddress.IPv6Address(bytes.fromhex(word))) for word in words if len(word) == 32)
