"""The node agent: Pods as ordinary processes in network namespaces of their own.

    spec         what the agent reads of a Pod: expanded environment, commands, ports             PURE
    users        who a process is                                                                 PURE
    volumes      what a Pod's volumes hold (PURE); with volumefiles (where they are on this host)
    model        runs, exits, what is observed of a Pod                                           PURE
    plan         Pod, observed, now -> actions, each with its reason                              PURE
    probes       thresholds and schedules; with checks (exec, tcpSocket, gRPC) and httpget (requests, PURE)
    status       Pod, observed -> the status a kubelet would write                                PURE
    addresses    which address of the node's Pod CIDRs is next                                    PURE
    logs         the log format, and reading it                                                   PURE but for files
    supervisor   a program of its own, one a Pod: keeps exit statuses; with launch (starting processes),
                 mounts (their volumes) and capture (their output into log files)
    sandbox      a Pod's namespace and its supervisor, as the agent sees them
    worker       one Pod's loop: observe -> plan -> act -> report; with health (its probes), hooks (preStop),
                 reporting (its status)
    traffic      what goes over the node's translations, for the console
    agent        Pods of this node -> workers; registration; the agent's HTTP port
    scheduler    Pods without a node -> a node (choose is PURE)
    echo         the built-in image svcplane/echo: says which Pod answers

The agent may die and come back at any time: supervisors and the processes under them go on, and are adopted.
"""
