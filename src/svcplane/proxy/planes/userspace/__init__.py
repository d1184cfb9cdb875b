"""The userspace plane: captured traffic comes to a local port of ours, and a relay brings it to a Pod.

balance        which endpoint a client gets: turns, weights, affinity, endpoints set aside      PURE
dial           how often and how long to dial                                                   PURE
policy         what annotations of a Service ask for                                            PURE
proxyprotocol  the header that tells a Pod the client's address                                 PURE
engine         one epoll loop with timers
exchange       an io_uring for the connections that take turns with small messages
tcp, udp       relays on it; `link` is one TCP connection, `direction` one way of it, `datagrams` many at once
worker         the process around them; `wire` is what it is told, `workers` the side that tells
handover       how listening sockets outlive the proxy
names, layout, compile, plan, trace   the capture rules                                         PURE
plane          the Plane contract over both
"""
