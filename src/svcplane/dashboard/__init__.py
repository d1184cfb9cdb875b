"""The web console: a live map of Services, endpoints, Pods and nodes, explain, trace, rules and events.

assets    the files under static/, as responses
reading   a cluster's objects as values, as the user who asks may read them
tracing   where a connection goes and why: the oracle's decision as steps of a path      PURE
ruling    what a node's proxy has to program, searchable: each element with its purpose  PURE
traffic   what the nodes' agents say of the connections over their nodes
console   the pages and the questions a browser cannot answer from lists and watches
gateway   the console in front of a cluster that does not serve it (`svcplane console`)

The browser reads with the API's own lists and watches and the user's token. Nothing is asked of any other host:
all scripts and styles are in static/, plain ES modules and CSS.
"""
