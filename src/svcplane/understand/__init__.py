"""Why a connection succeeds or fails: decisions on plain values, for people.  Pure; reading is done by callers.

finding    what a tool tells: code, severity, text, remedy
view       a cluster's objects as values, from an API or from files
similar    the nearest of several names
ports      target ports that a Pod does not have
pods       why a Pod is, or is not, an endpoint of a Service
labels     Pods that a selector misses by little
policies   where traffic policies leave a node without an endpoint
explain    the whole story of one Service
    programmed what each node has programmed of a Service
    planning   what applying objects would change
    affinity   remembered clients against the endpoints there are
    tracing    what becomes of a connection on a node
    probing    a real connection's result against a trace
    foreign    other people's rules that drop a packet
    doctor     what is wrong with a node
"""
