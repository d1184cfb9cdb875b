"""Pods that a selector misses by little: one label misspelt, missing, or in another namespace.  Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from svcplane.api.core import Pod
from svcplane.understand.similar import is_like, nearest


@dataclass(frozen=True, slots=True)
class NearMiss:
    """`difference` names the label: what the selector wants and what the Pod has.

    `misspelt`: it looks like an error of writing, not like a Pod of another Service.
    """

    pod: str  # namespace/name
    difference: str
    misspelt: bool


def near_miss(selector: Mapping[str, str], pod: Pod) -> NearMiss | None:
    """How the Pod's labels miss the selector, if by one pair only; None where they match or are far off."""
    labels = pod.metadata.labels
    wrong = [(key, value) for key, value in selector.items() if labels.get(key) != value]
    if len(wrong) != 1:
        return None
    key, wanted = wrong[0]
    here = f"the selector wants {key}={wanted}"
    if key in labels:
        has = labels[key]
        alike = is_like(wanted, has)
        if len(selector) == 1 and not alike:
            return None  # it shares nothing with the selector
        return NearMiss(pod.key, f"{here}, the Pod has {key}={has}", alike)
    others = {name: value for name, value in labels.items() if name not in selector}
    twin = nearest(key, [name for name, value in others.items() if is_like(wanted, value)])
    twin = twin or next((name for name, value in others.items() if value == wanted), "")
    if twin:
        return NearMiss(pod.key, f"{here}, the Pod has {twin}={others[twin]}", misspelt=True)
    if len(selector) == 1:
        return None
    return NearMiss(pod.key, f"{here}, the Pod has no label {key}", misspelt=False)


def near_misses(namespace: str, selector: Mapping[str, str], pods: Iterable[Pod]) -> tuple[NearMiss, ...]:
    """Of the Pods of a namespace; and Pods of other namespaces that match wholly."""
    found = []
    for pod in pods:
        if pod.metadata.namespace == namespace:
            miss = near_miss(selector, pod)
        elif all(pod.metadata.labels.get(key) == value for key, value in selector.items()):
            text = f"its labels match, but it is in namespace {pod.metadata.namespace}, the Service in {namespace}"
            miss = NearMiss(pod.key, text, misspelt=True)
        else:
            miss = None
        if miss is not None:
            found.append(miss)
    return tuple(sorted(found, key=lambda miss: (not miss.misspelt, miss.pod)))
