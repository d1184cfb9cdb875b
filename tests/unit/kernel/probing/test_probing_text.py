"""Addresses of a namespace out of /proc."""

from svcplane.kernel.probing.text import local_ipv4, local_ipv6

FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.244.1.0/24 2 0 2
        +-- 10.244.1.0/28 2 0 2
           |-- 10.244.1.0
              /24 link UNICAST
           |-- 10.244.1.3
              /32 host LOCAL
        |-- 10.244.1.255
           /32 link BROADCAST
Local:
     |-- 127.0.0.1
        /32 host LOCAL
"""
IF_INET6 = (
    "fd001096000000000000000000000001 02 40 00 80     eth0\n00000000000000000000000000000001 01 80 10 80       lo\n"
)


def test_only_local_leaves_are_addresses() -> None:
    assert local_ipv4(FIB_TRIE) == {"10.244.1.3", "127.0.0.1"}


def test_ipv6_addresses_are_canonical() -> None:
    assert local_ipv6(IF_INET6) == {"fd00:1096::1", "::1"}
