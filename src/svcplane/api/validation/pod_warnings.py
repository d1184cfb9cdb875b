"""What is accepted in a Pod and yet worth a word.  Pure.  Source: k8s.io/kubernetes/pkg/api/pod/warnings.go."""

from svcplane.api import quantity
from svcplane.api.fields import quoted
from svcplane.api.strategy import Tree
from svcplane.api.validation import volume_warnings
from svcplane.api.validation.names import label_value
from svcplane.api.validation.values import ip_warnings

DEPRECATED_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
}


DEPRECATED_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": 'non-functional in v1.16+; use the "priorityClassName" field instead',
    "security.alpha.kubernetes.io/sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
}
SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
_REQUIRED, _PREFERRED = (
    "requiredDuringSchedulingIgnoredDuringExecution",
    "preferredDuringSchedulingIgnoredDuringExecution",
)


def warnings(spec: Tree, annotations: dict[str, str]) -> list[str]:
    """Texts of Warning headers about a Pod."""
    found = _labels_of_nodes(spec)
    found += [
        f"metadata.annotations[{key}]: {text}" for key, text in DEPRECATED_ANNOTATIONS.items() if key in annotations
    ]
    found += volume_warnings.warnings(spec.get("volumes", []))
    found += _repeated(spec.get("hostAliases", []), "ip", "spec.hostAliases")
    found += _repeated(spec.get("imagePullSecrets", []), "name", "spec.imagePullSecrets")
    for index, secret in enumerate(spec.get("imagePullSecrets", [])):
        if not secret.get("name"):
            found.append(f'spec.imagePullSecrets[{index}].name: invalid empty name ""')
    found += _split_bytes([("spec.overhead", spec.get("overhead", {}))])
    found += _seccomp(spec, SECCOMP_POD, annotations)
    listed = [
        (f"spec.{kind}[{index}]", container)
        for kind in ("initContainers", "containers")
        for index, container in enumerate(spec.get(kind, []))
    ]
    for path, container in listed:
        found += _seccomp(container, SECCOMP_CONTAINER + container.get("name", ""), annotations)
        asked = container.get("resources", {})
        found += _split_bytes([(f"{path}.resources.{kind}", asked.get(kind, {})) for kind in ("limits", "requests")])
        found += _hidden_variables(container.get("env", []), f"{path}.env")
    found += _ports(listed) + _port_names(listed)
    if spec.get("terminationGracePeriodSeconds", 0) < 0:
        text = "must be >= 0; negative values are invalid and will be treated as 1"
        found.append(f"spec.terminationGracePeriodSeconds: {text}")
    return found + _affinity(spec.get("affinity") or {}) + _addresses(spec)


def _labels_of_nodes(spec: Tree) -> list[str]:
    """Labels that nodes had once, in what selects nodes."""
    found = [
        f"spec.nodeSelector[{key}]: {DEPRECATED_LABELS[key]}"
        for key in spec.get("nodeSelector", {})
        if key in DEPRECATED_LABELS
    ]
    path, affinity = "spec.affinity.nodeAffinity", (spec.get("affinity") or {}).get("nodeAffinity") or {}
    for index, term in enumerate((affinity.get(_REQUIRED) or {}).get("nodeSelectorTerms", [])):
        found += _of_term(term, f"{path}.{_REQUIRED}.nodeSelectorTerms[{index}]", values=False)
    for index, term in enumerate(affinity.get(_PREFERRED, [])):
        found += _of_term(term.get("preference", {}), f"{path}.{_PREFERRED}[{index}].preference", values=True)
    for index, constraint in enumerate(spec.get("topologySpreadConstraints", [])):
        place, key = f"spec.topologySpreadConstraints[{index}]", constraint.get("topologyKey", "")
        if key in DEPRECATED_LABELS:
            found.append(f"{place}.topologyKey: {key} is {DEPRECATED_LABELS[key]}")
        if constraint.get("labelSelector") is None:
            found.append(f"{place}.labelSelector: a null labelSelector results in matching no pod")
    return found


def _of_term(term: Tree, path: str, *, values: bool) -> list[str]:
    found: list[str] = []
    for index, expression in enumerate(term.get("matchExpressions", [])):
        place, key = f"{path}.matchExpressions[{index}]", expression.get("key", "")
        if key in DEPRECATED_LABELS:
            found.append(f"{place}.key: {key} is {DEPRECATED_LABELS[key]}")
        if values:
            found += [
                f"{place}.values[{at}]: {value} is invalid, {text}"
                for at, value in enumerate(expression.get("values", []))
                for text in label_value(value)
            ]
    return found


def _seccomp(holder: Tree, annotation: str, annotations: dict[str, str]) -> list[str]:
    """An annotation that a field has taken the place of."""
    if annotation not in annotations or (holder.get("securityContext") or {}).get("seccompProfile") is not None:
        return []
    return [f'metadata.annotations[{annotation}]: non-functional in v1.27+; use the "seccompProfile" field instead']


def _port_names(listed: list[tuple[str, Tree]]) -> list[str]:
    found: list[str] = []
    first: dict[str, str] = {}
    for path, container in listed:
        for index, port in enumerate(container.get("ports", [])):
            name, place = port.get("name", ""), f"{path}.ports[{index}]"
            if name in first:
                other = first[name]
                found.append(
                    f"{place}: duplicate port name {quoted(name)} with {other}, services and probes that select ports "
                    f"by name will use {other}"
                )
            elif name:
                first[name] = place
    return found


def _addresses(spec: Tree) -> list[str]:
    servers = enumerate((spec.get("dnsConfig") or {}).get("nameservers", []))
    found = [text for index, ip in servers for text in ip_warnings(f"spec.dnsConfig.nameservers[{index}]", ip)]
    for index, alias in enumerate(spec.get("hostAliases", [])):
        found += ip_warnings(f"spec.hostAliases[{index}].ip", alias.get("ip", ""))
    return found


def _affinity(affinity: Tree) -> list[str]:
    found: list[str] = []
    for kind in ("podAffinity", "podAntiAffinity"):
        terms, path = affinity.get(kind) or {}, f"spec.affinity.{kind}"
        found += _selecting_nothing(terms.get(_REQUIRED, []), f"{path}.{_REQUIRED}")
        weighed = [term.get("podAffinityTerm", {}) for term in terms.get(_PREFERRED, [])]
        found += _selecting_nothing(weighed, f"{path}.{_PREFERRED}", ".podAffinityTerm")
    return found


def _selecting_nothing(items: list[Tree], path: str, below: str = "") -> list[str]:
    return [
        f"{path}[{index}]{below}.labelSelector: a null labelSelector results in matching no pod"
        for index, item in enumerate(items)
        if item.get("labelSelector") is None
    ]


def _split_bytes(lists: list[tuple[str, dict[str, str]]]) -> list[str]:
    return [
        f'{path}[{name}]: fractional byte value "{amounts[name]}" is invalid, must be an integer'
        for name in ("memory", "ephemeral-storage")
        for path, amounts in lists
        if name in amounts and quantity.parse(amounts[name]) % 1
    ]


def _repeated(items: list[Tree], key: str, path: str) -> list[str]:
    values = [item.get(key, "") for item in items]
    return [
        f"{path}[{index}].{key}: duplicate {key} {quoted(value)}"
        for index, value in enumerate(values)
        if value in values[:index]
    ]


def _hidden_variables(variables: list[Tree], path: str) -> list[str]:
    """One that replaces an earlier one of its name without making use of it."""
    found: list[str] = []
    names: set[str] = set()
    for index, variable in enumerate(variables):
        name, value = variable.get("name", ""), variable.get("value", "")
        reference = f"$({name})"
        if name in names and (variable.get("valueFrom") is not None or value == reference or reference not in value):
            found.append(
                f"{path}[{index}]: hides previous definition of {quoted(name)}, which may be dropped when using apply"
            )
        names.add(name)
    return found


def _ports(listed: list[tuple[str, Tree]]) -> list[str]:
    """Ports that are there twice, over all containers."""
    found: list[str] = []
    known: dict[tuple[int, str], list[tuple[str, Tree]]] = {}
    for path, container in listed:
        for index, port in enumerate(container.get("ports", [])):
            place = f"{path}.ports[{index}]"
            if port.get("hostIP") and not port.get("hostPort"):
                found.append(f"{place}: hostIP set without hostPort: {_go_port(port)}")
            others = known.setdefault((port.get("containerPort", 0), port.get("protocol", "")), [])
            found += [f"{place}: {how}" for other in others if (how := _clash(port, *other))]
            others.append((place, port))
    return found


def _go_port(port: Tree) -> str:
    """As Go prints the struct."""
    zeros = {"name": "", "hostPort": 0, "containerPort": 0, "protocol": "", "hostIP": ""}
    return "{" + " ".join(f"{key[0].upper()}{key[1:]}:{port.get(key, zero)}" for key, zero in zeros.items()) + "}"


def _clash(port: Tree, where: str, other: Tree) -> str:
    ip, host = port.get("hostIP", ""), port.get("hostPort", 0)
    other_ip, other_host = other.get("hostIP", ""), other.get("hostPort", 0)
    if (ip, host) == (other_ip, other_host):
        return f"duplicate port definition with {where}"
    if not host or not other_host:
        return f"overlapping port definition with {where}"
    if host == other_host and bool(ip) != bool(other_ip):
        return f"dangerously ambiguous port definition with {where}"
    return ""
