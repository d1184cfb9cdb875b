"""Network namespaces, links, addresses, routes and their sysctls.

    objects      what a namespace should hold and what it holds, operations                  PURE
    plan         desired, observed -> operations; removal of what is ours                    PURE
    text         operations -> lines of `ip -batch`; `ip -json` output -> observed           PURE
    fake         an in-memory kernel with the same contract                                  PURE
    run          the real one, and running things inside a namespace

Ours is a namespace whose name begins with the owner's prefix, and a link whose alias begins with the
owner's mark; nothing else is ever changed or removed.  The namespace named "" is the one the process is in.
"""
