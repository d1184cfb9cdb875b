"""Containers of Pods.  Pure.  Source: pkg/apis/core/validation (validateContainers, validateInitContainers, ...)."""

from svcplane.api import fields as f
from svcplane.api import quantity
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Tree
from svcplane.api.validation import handlers, paths, references, security
from svcplane.api.validation.names import dns1123_label, dns1123_subdomain, port_name, port_number, qualified_name
from svcplane.api.validation.ports import protocol

PADDED = "must not have leading or trailing whitespace"
POLICIES = ("Always", "Never", "OnFailure")
PROPAGATION = ("Bidirectional", "HostToContainer", "None")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_ENV_TEXT = "a valid environment variable name must consist only of printable ASCII characters other than '='"
_ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef")
_STANDARD = frozenset({"cpu", "memory", "ephemeral-storage"})
_SIDECAR_ONLY = ("lifecycle", *handlers.PROBES)


def containers(spec: Tree, path: str) -> list[FieldError]:
    """The main containers of a Pod."""
    listed = spec.get("containers", [])
    if not listed:
        return [f.required(path)]
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, container in enumerate(listed):
        place, name = f"{path}[{index}]", container.get("name", "")
        errors += _common(container, place, spec)
        if name in names:
            errors.append(f.duplicate(f"{place}.name", name))
        names.add(name)
        errors += _hooks(container, place, spec) + _restart_policy(container, place)
    return errors + _host_ports(listed, path)


def init_containers(spec: Tree, path: str) -> list[FieldError]:
    """Those that run before, and sidecars."""
    errors: list[FieldError] = []
    names = {container.get("name", "") for container in spec.get("containers", [])}
    for index, container in enumerate(spec.get("initContainers", [])):
        place, name = f"{path}[{index}]", container.get("name", "")
        errors += _common(container, place, spec) + _restart_policy(container, place)
        if name in names:
            errors.append(f.duplicate(f"{place}.name", name))
        elif name:
            names.add(name)
        errors += _host_ports([container], path)
        if container.get("restartPolicy") == "Always":
            errors += _hooks(container, place, spec)
            continue
        detail = "may not be set for init containers without restartPolicy=Always"
        errors += [f.forbidden(f"{place}.{n}", detail) for n in _SIDECAR_ONLY if container.get(n) is not None]
    return errors


def trimmed_images(spec: Tree, path: str) -> list[FieldError]:
    """An image's name has no space around it."""
    return [
        f.invalid(f"{path}.{kind}[{index}].image", container["image"], PADDED)
        for kind in ("containers", "initContainers")
        for index, container in enumerate(spec.get(kind, []))
        if container.get("image", "").strip() != container.get("image", "")
    ]


def _common(container: Tree, path: str, spec: Tree) -> list[FieldError]:
    name = container.get("name", "")
    errors = [f.invalid(f"{path}.name", name, text) for text in dns1123_label(name)] if name else []
    errors += [] if name else [f.required(f"{path}.name")]
    errors += [] if container.get("image") else [f.required(f"{path}.image")]
    policy, place = container.get("terminationMessagePolicy", ""), f"{path}.terminationMessagePolicy"
    if policy not in ("File", "FallbackToLogsOnError"):
        supported = ("File", "FallbackToLogsOnError")
        errors.append(f.not_supported(place, policy, supported, keep_order=True) if policy else f.required(place))
    errors += _ports(container.get("ports", []), f"{path}.ports")
    errors += _env(container.get("env", []), f"{path}.env")
    errors += _env_from(container.get("envFrom", []), f"{path}.envFrom")
    errors += _mounts(container, spec, f"{path}.volumeMounts")
    pull, place = container.get("imagePullPolicy", ""), f"{path}.imagePullPolicy"
    if pull not in PULL_POLICIES:
        errors.append(f.not_supported(place, pull, PULL_POLICIES) if pull else f.required(place))
    errors += resources(container.get("resources", {}), f"{path}.resources")
    return errors + security.of_container(container.get("securityContext") or {}, f"{path}.securityContext")


def _hooks(container: Tree, path: str, spec: Tree) -> list[FieldError]:
    errors: list[FieldError] = []
    if container.get("lifecycle") is not None:
        grace_s = spec.get("terminationGracePeriodSeconds", 30)
        errors += handlers.lifecycle(container["lifecycle"], f"{path}.lifecycle", grace_s)
    for kind in handlers.PROBES:
        if container.get(kind) is not None:
            errors += handlers.probe(container[kind], kind, f"{path}.{kind}")
    return errors


def _restart_policy(container: Tree, path: str) -> list[FieldError]:
    policy = container.get("restartPolicy")
    return [] if policy in (None, *POLICIES) else [f.not_supported(f"{path}.restartPolicy", policy, POLICIES)]


def _ports(ports: list[Tree], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        place, name, number = f"{path}[{index}]", port.get("name", ""), port.get("containerPort", 0)
        if name:
            found = [f.invalid(f"{place}.name", name, text) for text in port_name(name)]
            if not found and name in names:
                found.append(f.duplicate(f"{place}.name", name))
            names |= set() if found else {name}
            errors += found
        if number:
            errors += [f.invalid(f"{place}.containerPort", number, text) for text in port_number(number)]
        else:
            errors.append(f.required(f"{place}.containerPort"))
        if host := port.get("hostPort", 0):
            errors += [f.invalid(f"{place}.hostPort", host, text) for text in port_number(host)]
        errors += protocol(port, place)
    return errors


def _host_ports(listed: list[Tree], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    taken: set[str] = set()
    for number, container in enumerate(listed):
        for index, port in enumerate(container.get("ports", [])):
            if not port.get("hostPort"):
                continue
            key = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{port['hostPort']}"
            if key in taken:
                errors.append(f.duplicate(f"{path}[{number}].ports[{index}].hostPort", key))
            taken.add(key)
    return errors


def _env(variables: list[Tree], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, variable in enumerate(variables):
        place, name = f"{path}[{index}]", variable.get("name", "")
        errors += _env_name(name, f"{place}.name") if name else [f.required(f"{place}.name")]
        if variable.get("valueFrom") is not None:
            errors += _value_from(variable, f"{place}.valueFrom")
    return errors


def _env_name(name: str, path: str) -> list[FieldError]:
    fits = name.isascii() and name.isprintable() and "=" not in name
    return [] if fits else [f.invalid(path, name, _ENV_TEXT)]


def _env_from(sources: list[Tree], path: str) -> list[FieldError]:
    """Upstream names the list where there is not one source."""
    errors: list[FieldError] = []
    for index, source in enumerate(sources):
        place, prefix = f"{path}[{index}]", source.get("prefix", "")
        errors += _env_name(prefix, f"{place}.prefix") if prefix else []
        given = [kind for kind in ("configMapRef", "secretRef") if source.get(kind) is not None]
        for kind in given:
            where, name = f"{place}.{kind}.name", source[kind].get("name", "")
            errors += [f.invalid(where, name, text) for text in dns1123_subdomain(name, prefix=True)] if name else []
            errors += [] if name else [f.required(where)]
        if not given:
            errors.append(f.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(given) > 1:
            errors.append(f.invalid(path, "", "may not have more than one field specified at a time"))
    return errors


def _value_from(variable: Tree, path: str) -> list[FieldError]:
    source = variable["valueFrom"]
    given = [kind for kind in _ENV_SOURCES if source.get(kind) is not None]
    errors: list[FieldError] = []
    if source.get("fieldRef") is not None:
        errors += references.field(source["fieldRef"], f"{path}.fieldRef", _ENV_FIELDS)
    if source.get("resourceFieldRef") is not None:
        errors += references.resource(source["resourceFieldRef"], f"{path}.resourceFieldRef")
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if source.get(kind) is not None:
            errors += _key_ref(source[kind], f"{path}.{kind}")
    if not given:
        detail = (
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        )
        if source.get("fileKeyRef") is None:
            errors.append(f.invalid(path, "", detail))
    elif variable.get("value"):
        errors.append(f.invalid(path, "", "may not be specified when `value` is not empty"))
    elif len(given) > 1:
        errors.append(f.invalid(path, "", "may not have more than one field specified at a time"))
    return errors


def _key_ref(reference: Tree, path: str) -> list[FieldError]:
    name = reference.get("name", "")
    errors = [f.invalid(f"{path}.name", name, text) for text in dns1123_subdomain(name)]
    return errors + ([] if reference.get("key") else [f.required(f"{path}.key")])


def _mounts(container: Tree, spec: Tree, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    mounts = container.get("volumeMounts", [])
    volumes = {volume.get("name", "") for volume in spec.get("volumes", [])}
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        place, name, target = f"{path}[{index}]", mount.get("name", ""), mount.get("mountPath", "")
        errors += [] if name else [f.required(f"{place}.name")]
        errors += [] if name in volumes else [f.not_found(f"{place}.name", name)]
        errors += [] if target else [f.required(f"{place}.mountPath")]
        if target in seen:
            errors.append(f.invalid(f"{place}.mountPath", target, "must be unique"))
        seen.add(target)
        errors += _sub_path(mount, place, path) + _propagation(mount, container, f"{path}.mountPropagation")
    return errors


def _propagation(mount: Tree, container: Tree, path: str) -> list[FieldError]:
    """Upstream does not say which mount it is."""
    mode = mount.get("mountPropagation")
    if mode is None:
        return []
    errors = [] if mode in PROPAGATION else [f.not_supported(path, mode, PROPAGATION)]
    if mode == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
        detail = "Bidirectional mount propagation is available only to privileged containers"
        errors.append(f.forbidden(path, detail))
    return errors


def _sub_path(mount: Tree, place: str, path: str) -> list[FieldError]:
    """Upstream names the list where a path is no way down."""
    errors: list[FieldError] = []
    for field in ("subPath", "subPathExpr"):
        value = mount.get(field, "")
        if field == "subPathExpr" and value and mount.get("subPath"):
            errors.append(f.invalid(f"{place}.{field}", value, "subPathExpr and subPath are mutually exclusive"))
        errors += paths.local(value, f"{path}.{field}")
    return errors


def resources(asked: Tree, path: str) -> list[FieldError]:
    """Requests and limits, each by itself and against each other."""
    limits, requests = asked.get("limits", {}), asked.get("requests", {})
    errors: list[FieldError] = []
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, text in amounts.items():
            errors += _resource(name, text, f"{path}.{field}[{name}]")
            if field == "requests":
                errors += _request(name, text, limits, path)
    return errors


def _request(name: str, text: str, limits: dict[str, str], path: str) -> list[FieldError]:
    limit, native = limits.get(name), "/" not in name or "kubernetes.io/" in name
    overcommits = native and not name.startswith("hugepages-")
    if limit is None:
        detail = "Limit must be set for non overcommitable resources"
        return [] if overcommits else [f.required(f"{path}.limits", detail)]
    asked, bound = quantity.parse(text), quantity.parse(limit)
    if asked != bound and not overcommits:
        return [f.invalid(f"{path}.requests", text, f"must be equal to {name} limit of {limit}")]
    if asked > bound:
        return [f.invalid(f"{path}.requests", text, f"must be less than or equal to {name} limit of {limit}")]
    return []


def _resource(name: str, text: str, path: str) -> list[FieldError]:
    errors = [f.invalid(path, name, problem) for problem in qualified_name(name)]
    if "/" not in name and name not in _STANDARD and not name.startswith("hugepages-"):
        if not errors:
            errors.append(f.invalid(path, name, "must be a standard resource type or fully qualified"))
        errors.append(f.invalid(path, name, "must be a standard resource for containers"))
    amount = quantity.parse(text)
    if amount < 0:
        errors.append(f.invalid(path, text, handlers.NOT_NEGATIVE))
    if "/" in name and "kubernetes.io/" not in name and amount % 1:
        errors.append(f.invalid(path, text, "must be an integer"))
    return errors
