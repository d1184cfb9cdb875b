"""A real connection's result against what the trace says of it.  Pure."""

from collections.abc import Iterable, Mapping

from svcplane.proxy.model import Protocol
from svcplane.understand.finding import Finding, Severity
from svcplane.understand.tracing import Trace

GOOD = ("connected", "answered")
UNCLEAR = ("no answer",)  # a datagram need not be answered


def judge(
    trace: Trace, result: str, translated_to: str, direct: Mapping[str, str], remembered: str
) -> tuple[Finding, ...]:
    """`direct`: endpoint -> result of connecting to it from this node without a Service in between.

    `translated_to`: the endpoint connection tracking shows; `remembered`: the one affinity held before.
    """
    return tuple(_judge(trace, result, translated_to, direct, remembered))


def _judge(
    trace: Trace, result: str, translated_to: str, direct: Mapping[str, str], remembered: str
) -> Iterable[Finding]:
    delivers = "deliver" in trace.verdict
    if result in GOOD:
        if trace.service and not delivers:
            text = f"the probe was {result}, though the verdict is {trace.verdict}"
            yield Finding("probe-differs", Severity.PROBLEM, trace.destination, text, "look for other translations")
        elif delivers and translated_to and translated_to not in {share.endpoint for share in trace.shares}:
            text = f"the probe was {result} by {translated_to}, which is none of the endpoints"
            yield Finding("probe-elsewhere", Severity.PROBLEM, trace.destination, text, "look for other translations")
        return
    if not delivers:
        return  # the trace's own findings say why
    target = translated_to or (remembered if remembered in direct else "")
    if not target and len(direct) == 1:
        target = next(iter(direct))
    if result in UNCLEAR and trace.destination.endswith(Protocol.UDP) and direct.get(target) in (*GOOD, *UNCLEAR):
        if direct.get(target) in UNCLEAR:
            text = f"no answer to a datagram, and none from {target} itself: that says nothing of UDP"
            yield Finding("probe-unclear", Severity.NOTE, trace.destination, text, "try with the real protocol's tool")
            return
    dead = direct.get(target) not in GOOD if target in direct else False
    if dead and target == remembered:
        alive = [endpoint for endpoint, seen in direct.items() if seen in GOOD]
        text = f"session affinity holds the client to {target}, which does not answer ({direct[target]})"
        text += f"; {', '.join(alive)} would" if alive else ""
        remedy = f"svcplane affinity evict {trace.client} --service {trace.service}, and make the Pod's readiness"
        remedy += " probe tell when it is dead"
        yield Finding("affinity-to-dead-pod", Severity.PROBLEM, trace.service, text, remedy)
    elif dead:
        text = f"the probe ended with {result}: {target} does not answer this node directly either ({direct[target]})"
        remedy = "look at what listens in the Pod, and at the way to its node"
        yield Finding("endpoint-silent", Severity.PROBLEM, target, text, remedy)
    else:
        where = f"it was translated to {target}, which answers this node directly" if target else "nothing answered"
        text = f"the probe ended with {result}: {where}"
        remedy = "look for what drops it on the way: svcplane doctor (forwarding, rp_filter, other rules)"
        yield Finding("lost-on-the-way", Severity.PROBLEM, trace.destination, text, remedy)
