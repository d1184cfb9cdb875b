"""svcplane: the Kubernetes Service system, complete, for any Linux host.

Package map, lowest layer first (imports point down only):

    base         errors, canonical addresses, clock, supervised tasks
    api          wire types and rules of Kubernetes objects; pure
    store        opaque bytes by key with revisions (memory, SQLite, etcd)
    kernel       the only code that touches Linux (nft, iptables, ipset, ipvs, conntrack, links)
    server       the API server
    client       list-watch machine, informers, work queue, transports
    controllers  Endpoints, EndpointSlices, mirroring, namespaces
    proxy        the service proxy and its planes
    node         the node agent: Pods as processes
    dashboard    the web console
    lab          many nodes as network namespaces on one machine
    cli          the command line; the only place where components are put together
"""

__version__ = "0.1.0"
