"""Packets with a mark are taken in by this host, whatever their destination: a rule and a route, over rtnetlink.

objects   the contract                        PURE
fake      in memory, with the same contract   PURE
run       the kernel's own
"""
