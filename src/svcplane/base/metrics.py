"""What every process tells of itself, and the page of several registries."""

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4"
#: Memory, processor time and descriptors of this process; once a page, whoever else is on it.
PROCESS = CollectorRegistry()
ProcessCollector(registry=PROCESS)


def page(*registries: CollectorRegistry) -> bytes:
    """The text format of all of them and of the process; no two may have a metric of one name."""
    return b"".join(map(generate_latest, (*registries, PROCESS)))
