"""A dummy device that holds addresses, so that packets for them are taken in by this host; over rtnetlink.

objects   the contract                        PURE
fake      in memory, with the same contract   PURE
run       the kernel's own
"""
