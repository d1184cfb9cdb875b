"""What the controllers see: Services, Pods, Nodes and what they wrote, with the indexes that keep work small.

A Pod finds its Services by one label pair of their selectors, a Service its Pods by one pair of its own: neither
walks all of the other.
"""

from collections.abc import Iterable

from svcplane.api.core import Pod, Service
from svcplane.controllers import pods as p

Pair = tuple[str, str, str]  # namespace, label, value


class SelectorIndex:
    """Services by a pair of their selector, Pods by each pair of their labels."""

    def __init__(self) -> None:
        self._services: dict[Pair, set[str]] = {}
        self._service_pair: dict[str, Pair] = {}
        self._by_key: dict[str, Service] = {}
        self._pods: dict[Pair, set[str]] = {}
        self._pod_by_key: dict[str, Pod] = {}

    def service_changed(self, old: Service | None, new: Service | None) -> None:
        if old is not None:
            pair = self._service_pair.pop(old.key, None)
            if pair is not None:
                self._discard(self._services, pair, old.key)
            self._by_key.pop(old.key, None)
        if new is not None:
            self._by_key[new.key] = new
            if new.spec.selector:
                label, value = min(new.spec.selector.items())
                pair = (new.metadata.namespace, label, value)
                self._service_pair[new.key] = pair
                self._services.setdefault(pair, set()).add(new.key)

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        for pod, add in ((old, False), (new, True)):
            if pod is None:
                continue
            for label, value in pod.metadata.labels.items():
                pair = (pod.metadata.namespace, label, value)
                if add:
                    self._pods.setdefault(pair, set()).add(pod.key)
                else:
                    self._discard(self._pods, pair, pod.key)
            if add:
                self._pod_by_key[pod.key] = pod
            else:
                self._pod_by_key.pop(pod.key, None)

    @staticmethod
    def _discard(index: dict[Pair, set[str]], pair: Pair, key: str) -> None:
        group = index.get(pair)
        if group is not None:
            group.discard(key)
            if not group:
                del index[pair]

    def services_of(self, pods: Iterable[Pod | None]) -> set[str]:
        """Keys of the Services that select any of these Pods."""
        found: set[str] = set()
        for pod in pods:
            if pod is None:
                continue
            for label, value in pod.metadata.labels.items():
                for key in self._services.get((pod.metadata.namespace, label, value), ()):
                    if p.selects(self._by_key[key], pod):
                        found.add(key)
        return found

    def pods_of(self, service: Service) -> list[Pod]:
        """The Pods a Service selects, by name."""
        namespace = service.metadata.namespace
        groups = [self._pods.get((namespace, label, value), set()) for label, value in service.spec.selector.items()]
        if not groups:
            return []
        candidates = min(groups, key=len)
        chosen = (self._pod_by_key[key] for key in sorted(candidates))
        return [pod for pod in chosen if p.selects(service, pod)]


class TriggerTimes:
    """Since when the newest change of a Service's Pods exists, for network programming latency.

    Source: pkg/controller/util/endpoint TriggerTimeTracker.
    """

    def __init__(self) -> None:
        self._pods: dict[str, dict[str, str]] = {}
        self._owed: dict[str, str] = {}

    def compute(self, service: Service, pods: Iterable[Pod]) -> str:
        """The earliest of the times that are new since the last call; empty where none is."""
        known = self._pods.get(service.key)
        fresh: dict[str, str] = {}
        changes: list[str] = []
        for pod in pods:
            time = _changed_at(pod)
            if not time:
                continue
            fresh[pod.key] = time
            if known is not None and time > known.get(pod.key, ""):
                changes.append(time)
        created = service.metadata.creation_timestamp or ""
        self._pods[service.key] = fresh
        if known is None:
            return created
        return min(changes) if changes else ""

    def compute_some(self, service: Service, pods: Iterable[Pod]) -> str:
        """As `compute` where only these Pods changed since the last call."""
        known = self._pods.get(service.key)
        if known is None:
            return self.compute(service, pods)
        changes = []
        for pod in pods:
            time = _changed_at(pod)
            if time and time > known.get(pod.key, ""):
                changes.append(time)
            known[pod.key] = time
        return min(changes) if changes else ""

    def undone(self, key: str, time: str) -> None:
        """The write that was to carry this time failed: the next one carries it."""
        self._owed[key] = min(time, self._owed.get(key, time)) if time else self._owed.get(key, "")

    def owed(self, key: str, time: str) -> str:
        """`time`, or an earlier one that no write has carried."""
        before = self._owed.pop(key, "")
        return min(before, time) if before and time else before or time

    def forget(self, key: str) -> None:
        self._pods.pop(key, None)
        self._owed.pop(key, None)


def _changed_at(pod: Pod) -> str:
    for condition in pod.status.conditions:
        if condition.type == "Ready" and condition.last_transition_time:
            return condition.last_transition_time
    return ""
