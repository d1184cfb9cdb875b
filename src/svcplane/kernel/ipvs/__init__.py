"""IPVS, the kernel's layer-4 balancer, over generic netlink.

    objects   virtual servers, destinations, changes, and the contract     PURE
    codec     objects <-> netlink messages                                 PURE
    fake      an in-memory IPVS with the same contract                     PURE
    run       the kernel's own

Must never know of Services: what to program is the plane's business.
"""
