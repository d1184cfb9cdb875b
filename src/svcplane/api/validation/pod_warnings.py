"""What is accepted in a Pod and yet worth a word.  Pure.  Source: k8s.io/kubernetes/pkg/api/pod/warnings.go."""

from svcplane.api import quantity
from svcplane.api.strategy import Tree

DEPRECATED_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
}


def warnings(spec: Tree) -> list[str]:
    """Texts of Warning headers about a Pod's spec."""
    found = [
        f"spec.nodeSelector[{key}]: {DEPRECATED_LABELS[key]}"
        for key in spec.get("nodeSelector", {})
        if key in DEPRECATED_LABELS
    ]
    found += _selecting_nothing(spec.get("topologySpreadConstraints", []), "spec.topologySpreadConstraints")
    found += _repeated(spec.get("hostAliases", []), "ip", "spec.hostAliases")
    found += _repeated(spec.get("imagePullSecrets", []), "name", "spec.imagePullSecrets")
    for index, secret in enumerate(spec.get("imagePullSecrets", [])):
        if not secret.get("name"):
            found.append(f'spec.imagePullSecrets[{index}].name: invalid empty name ""')
    listed = [
        (f"spec.{kind}[{index}]", container)
        for kind in ("initContainers", "containers")
        for index, container in enumerate(spec.get(kind, []))
    ]
    found += _split_bytes([("spec.overhead", spec.get("overhead", {}))])
    for path, container in listed:
        asked = container.get("resources", {})
        found += _split_bytes([(f"{path}.resources.{kind}", asked.get(kind, {})) for kind in ("limits", "requests")])
        found += _hidden_variables(container.get("env", []), f"{path}.env")
    found += _ports(listed)
    if spec.get("terminationGracePeriodSeconds", 0) < 0:
        text = "must be >= 0; negative values are invalid and will be treated as 1"
        found.append(f"spec.terminationGracePeriodSeconds: {text}")
    return found + _affinity(spec.get("affinity") or {})


def _affinity(affinity: Tree) -> list[str]:
    found: list[str] = []
    for kind in ("podAffinity", "podAntiAffinity"):
        terms, path = affinity.get(kind) or {}, f"spec.affinity.{kind}"
        required = "requiredDuringSchedulingIgnoredDuringExecution"
        preferred = "preferredDuringSchedulingIgnoredDuringExecution"
        found += _selecting_nothing(terms.get(required, []), f"{path}.{required}")
        weighed = [term.get("podAffinityTerm", {}) for term in terms.get(preferred, [])]
        found += _selecting_nothing(weighed, f"{path}.{preferred}", ".podAffinityTerm")
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
        f'{path}[{index}].{key}: duplicate {key} "{value}"'
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
                f'{path}[{index}]: hides previous definition of "{name}", which may be dropped when using apply'
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
