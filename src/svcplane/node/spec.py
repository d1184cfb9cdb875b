"""What the agent reads of a Pod's containers: command lines, environment, ports.  Pure.

Source: core/v1 Container; `$(NAME)` expansion as in `third_party/forked/golang/expansion` (`$$` is a dollar,
an unknown name stays as it is).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from svcplane.api.core import Container, IntOrString, OptionalSource, Pod, Service
from svcplane.base.errors import SvcplaneError
from svcplane.base.net import join_host_port
from svcplane.node.users import MustNotBeRoot, User, user_of

# Images that svcplane itself can run: name without tag -> module.
BUILT_IN = {"svcplane/echo": "svcplane.node.echo"}
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REFERENCE = re.compile(r"\$(\$|\([^()$]*\))")
_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")


class CannotRun(SvcplaneError):
    """The container cannot be started as it is written; the text says why (`CreateContainerConfigError`)."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A part of a volume over a path.  `sub`: which part, "" for all of it."""

    source: str
    sub: str
    target: str
    read_only: bool = False
    recursive: bool = False  # read-only with all that is mounted below


@dataclass(frozen=True, slots=True)
class Process:
    """What to execute."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    user: User | None = None  # None: the agent's
    mounts: tuple[Mount, ...] = ()


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `$(NAME)` where NAME is known, and `$$` by a dollar sign."""

    def one(match: re.Match[str]) -> str:
        word = match[1]
        return "$" if word == "$" else values.get(word[1:-1], match[0])

    return _REFERENCE.sub(one, text)


def field_value(pod: Pod, path: str, ips: Sequence[str], host_ips: Sequence[str]) -> str:
    """The value of a `fieldRef`.  Raises CannotRun for a path that env does not support."""
    meta, spec = pod.metadata, pod.spec
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        source = meta.labels if subscript[1] == "labels" else meta.annotations
        return source.get(subscript[2], "")
    values = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "spec.nodeName": spec.node_name,
        "spec.serviceAccountName": spec.service_account_name or "default",
        "status.podIP": ips[0] if ips else "",
        "status.podIPs": ",".join(ips),
        "status.hostIP": host_ips[0] if host_ips else "",
        "status.hostIPs": ",".join(host_ips),
    }
    if path not in values:
        raise CannotRun(f"unsupported fieldPath: {path}")
    return values[path]


def service_variables(pod: Pod, services: Iterable[Service]) -> dict[str, str]:
    """`NAME_SERVICE_HOST` and the others for each Service of the Pod's namespace that has a ClusterIP.

    Without enableServiceLinks only those of `kubernetes` in `default`, which every Pod has.  Source: the kubelet's
    getServiceEnvVarMap and pkg/kubelet/envvars.
    """
    links = pod.spec.enable_service_links is not False
    chosen: dict[str, Service] = {}
    for service in sorted(services, key=lambda each: each.key):
        meta, ip = service.metadata, service.spec.cluster_ip
        if not service.spec.ports or ip in ("", "None"):
            continue
        if links and meta.namespace == pod.metadata.namespace:
            chosen[meta.name] = service
        elif (meta.namespace, meta.name) == ("default", "kubernetes"):
            chosen.setdefault(meta.name, service)
    return {key: value for service in chosen.values() for key, value in _links(service).items()}


def _links(service: Service) -> dict[str, str]:
    name = service.metadata.name.upper().replace("-", "_")
    ip, ports = service.spec.cluster_ip, service.spec.ports
    made = {f"{name}_SERVICE_HOST": ip, f"{name}_SERVICE_PORT": str(ports[0].port)}
    for port in ports:
        if port.name:
            made[f"{name}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.port)
    for number, port in enumerate(ports):
        protocol = port.protocol or "TCP"
        url = f"{protocol.lower()}://{join_host_port(ip, port.port)}"
        if number == 0:
            made[f"{name}_PORT"] = url
        prefix = f"{name}_PORT_{port.port}_{protocol}"
        made |= {
            prefix: url,
            f"{prefix}_PROTO": protocol.lower(),
            f"{prefix}_PORT": str(port.port),
            f"{prefix}_ADDR": ip,
        }
    return made


def environment(
    pod: Pod,
    container: Container,
    ips: Sequence[str],
    host_ips: Sequence[str],
    given: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The container's variables, in order, each able to use those before it and those `given`.

    Raises CannotRun for a source that there is not.
    """
    for origin in container.env_from:
        if not (origin.config_map_ref or origin.secret_ref or OptionalSource()).optional:
            raise CannotRun("envFrom: there are no ConfigMaps and Secrets")
    known: dict[str, str] = dict(given or {})
    for variable in container.env:
        source = variable.value_from
        if source is None:
            known[variable.name] = expand(variable.value, known)
        elif source.field_ref is not None:
            known[variable.name] = field_value(pod, source.field_ref.field_path, ips, host_ips)
        else:
            raise CannotRun(f"env {variable.name}: only value and valueFrom.fieldRef are supported")
    return known


def built_in(image: str) -> str | None:
    """The module behind a built-in image, whatever its tag."""
    name = image.removeprefix("docker.io/").partition("@")[0]
    head, _, tail = name.rpartition("/")
    return BUILT_IN.get(f"{head}/{tail.partition(':')[0]}")


def process_of(
    pod: Pod,
    container: Container,
    ips: Sequence[str],
    host_ips: Sequence[str],
    python: Sequence[str],
    services: Iterable[Service] = (),
    volumes: Mapping[str, str] | None = None,
) -> Process:
    """What to execute for a container; `python` starts the interpreter of the built-in images.

    `services`: those whose addresses its environment tells.  `volumes`: name -> where it is on this host.

    Raises CannotRun if it names no command and its image is not built in, or for a user or mount that cannot be.
    """
    try:
        user = user_of(pod, container)
    except MustNotBeRoot as error:
        raise CannotRun(str(error)) from error
    variables = environment(pod, container, ips, host_ips, service_variables(pod, services))
    home = "/" if user is not None and user.uid else "/root"
    base = {"PATH": DEFAULT_PATH, "HOME": home, "HOSTNAME": hostname_of(pod)}
    command = [expand(word, variables) for word in container.command]
    arguments = [expand(word, variables) for word in container.args]
    module = built_in(container.image)
    if not command:
        if module is None:
            raise CannotRun(
                f'svcplane runs processes, not images: set command (image "{container.image}" is only recorded)'
            )
        command = [*python, "-m", module]
        own = {
            "POD_NAME": pod.metadata.name,
            "POD_NAMESPACE": pod.metadata.namespace,
            "NODE_NAME": pod.spec.node_name,
            "ECHO_PORTS": ports_text(container),
        }
        base |= own
    mounts = mounts_of(container, volumes or {}, variables)
    return Process((*command, *arguments), base | variables, container.working_dir, user, mounts)


def mounts_of(container: Container, volumes: Mapping[str, str], variables: Mapping[str, str]) -> tuple[Mount, ...]:
    """A container's mounts.  Raises CannotRun for a volume that there is not, or a part that is outside of it."""
    made = []
    for mount in container.volume_mounts:
        source = volumes.get(mount.name)
        if source is None:
            raise CannotRun(f"volumeMounts: there is no volume {mount.name}")
        sub = mount.sub_path or expand(mount.sub_path_expr, variables)
        if sub.startswith("/") or ".." in sub.split("/"):
            raise CannotRun(f'failed to prepare subPath for volumeMount "{mount.name}": {sub} leads out of the volume')
        target = mount.mount_path if mount.mount_path.startswith("/") else f"/{mount.mount_path}"
        made.append(Mount(source, sub, target, mount.read_only, mount.read_only and mount.read_only_below))
    return tuple(made)


def ports_text(container: Container) -> str:
    """`TCP:8080,UDP:53`: what the built-in echo server listens on."""
    return ",".join(f"{port.protocol}:{port.container_port}" for port in container.ports)


def hostname_of(pod: Pod) -> str:
    """spec.hostname, else the Pod's name; at most 63 characters."""
    return pod.spec.hostname or pod.metadata.name[:63].rstrip("-.")


def port_number(container: Container, port: IntOrString) -> int | None:
    """A probe's port: a number, or the name of one of the container's ports."""
    if isinstance(port, int):
        return port
    if port.isdigit():
        return int(port)
    return next((p.container_port for p in container.ports if p.name == port), None)
