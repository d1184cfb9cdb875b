"""Sets of addresses and ports that iptables rules look things up in, over netlink.

objects   sets, entries, changes, and the contract     PURE
codec     objects <-> netlink messages                 PURE
fake      in memory, with the same contract            PURE
run       the kernel's own
"""
