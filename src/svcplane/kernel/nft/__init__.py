"""nf_tables over netlink.

    objects      typed tables, chains, rules, expressions, sets, elements and transactions   PURE
    codec        objects <-> netlink messages                                              PURE
    fake         an in-memory nf_tables with the same contract (ships: dry runs use it)     PURE
    interpreter  runs the rules of a ruleset on a packet, all random choices at once        PURE
    walk         a packet through the hooks of a table, one after the other                    PURE
    run          the kernel's own nf_tables through a netlink socket

Must never know of Services: what to program is the planes' business.
"""
