"""What is wrong with a node, from facts about it.  Pure.

examined   everything that is looked at, as one value
host       permissions, tools, kernel features, clock
network    forwarding, reverse path filters, MTU, ports, connection tracking
rivals     other proxies, other people's rules
proxy      the proxy on this node: stopped, behind, wrong cluster CIDR, flows to dead endpoints
way        those findings that bear on one connection
diagnose   all checks in one list
"""
