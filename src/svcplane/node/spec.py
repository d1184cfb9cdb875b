"""What the agent reads of a Pod's containers: command lines, environment, ports.  Pure.

Source: core/v1 Container; `$(NAME)` expansion as in `third_party/forked/golang/expansion` (`$$` is a dollar,
an unknown name stays as it is).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from svcplane.api.core import Container, IntOrString, Pod
from svcplane.base.errors import SvcplaneError

# Images that svcplane itself can run: name without tag -> module.
BUILT_IN = {"svcplane/echo": "svcplane.node.echo"}
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REFERENCE = re.compile(r"\$(\$|\([^()$]*\))")
_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")


class CannotRun(SvcplaneError):
    """The container cannot be started as it is written; the text says why (`CreateContainerConfigError`)."""


@dataclass(frozen=True, slots=True)
class Process:
    """What to execute."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str


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
        "spec.serviceAccountName": "default",
        "status.podIP": ips[0] if ips else "",
        "status.podIPs": ",".join(ips),
        "status.hostIP": host_ips[0] if host_ips else "",
        "status.hostIPs": ",".join(host_ips),
    }
    if path not in values:
        raise CannotRun(f"unsupported fieldPath: {path}")
    return values[path]


def environment(pod: Pod, container: Container, ips: Sequence[str], host_ips: Sequence[str]) -> dict[str, str]:
    """The container's variables, in order, each able to use those before it."""
    known: dict[str, str] = {}
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
    pod: Pod, container: Container, ips: Sequence[str], host_ips: Sequence[str], python: Sequence[str]
) -> Process:
    """What to execute for a container; `python` starts the interpreter of the built-in images.

    Raises CannotRun if it names no command and its image is not built in.
    """
    variables = environment(pod, container, ips, host_ips)
    base = {"PATH": DEFAULT_PATH, "HOME": "/root", "HOSTNAME": hostname_of(pod)}
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
    return Process((*command, *arguments), base | variables, container.working_dir)


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
