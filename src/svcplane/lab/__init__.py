"""Clusters of network namespaces on one machine.

    topology   what the namespaces of a lab hold                             PURE
    cluster    a lab's namespaces, processes and state: up, find, down
    client     connections out of a lab's namespace
    scenario   a prepared situation as a directory                       PURE
    play       bringing a scenario about, up to its symptom
    demo       the main job, shown and checked, in each proxy mode

A lab lives in namespaces called `svclab-NAME-...`; nothing of the host's own network is touched.
"""
