"""ipvs mode: the kernel's layer-4 balancer, ipset, and a fixed handful of iptables rules.

names     the device, sets and chains                                        PURE
policy    flags and annotations -> how a service port is balanced            PURE
compile   one service port -> its virtual servers, set entries, addresses    PURE
rules     the iptables rules, the same whatever the Services                 PURE
book      all fragments together: what is wanted of each key                 PURE
plan      what is wanted, what is there -> changes in a safe order           PURE
drain     which targets take no new connections, and until when              PURE
trace     what is there and a packet -> what happens to it                   PURE
plane     observe, plan, apply
"""
