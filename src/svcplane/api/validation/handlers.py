"""What probes and lifecycle hooks of containers do.  Pure.  Source: pkg/apis/core/validation (validateProbe, ...)."""

import re
from typing import Any

from svcplane.api import fields as f
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Tree
from svcplane.api.validation.names import port_name, port_number

NOT_NEGATIVE = "must be greater than or equal to 0"
_HEADER = re.compile(r"[-A-Za-z0-9]+")
_HEADER_TEXT = (
    "a valid HTTP header must consist of alphanumeric characters or '-' "
    "(e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')"
)
_NUMBERS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def port_or_name(value: Any, path: str) -> list[FieldError]:
    """A number of a port, or the name of one."""
    rule = port_name if isinstance(value, str) else port_number
    return [f.invalid(path, value, text) for text in rule(value)]


def probe(value: Tree, kind: str, path: str) -> list[FieldError]:
    """`kind`: one of PROBES."""
    errors = handler(value, ("exec", "httpGet", "tcpSocket", "grpc"), path, 0)
    errors += [f.invalid(f"{path}.{n}", value[n], NOT_NEGATIVE) for n in _NUMBERS if value.get(n, 0) < 0]
    grace = value.get("terminationGracePeriodSeconds")
    if grace is not None and grace <= 0:
        errors.append(f.invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than 0"))
    if kind == "readinessProbe":
        if grace is not None:
            detail = "must not be set for readinessProbes"
            errors.append(f.invalid(f"{path}.terminationGracePeriodSeconds", grace, detail))
    elif value.get("successThreshold", 0) != 1:
        errors.append(f.invalid(f"{path}.successThreshold", value.get("successThreshold", 0), "must be 1"))
    return errors


def lifecycle(value: Tree, path: str, grace_s: int) -> list[FieldError]:
    """`grace_s`: the Pod's termination grace period, which a sleep must not outlast."""
    errors: list[FieldError] = []
    for hook in ("postStart", "preStop"):
        if value.get(hook) is not None:
            errors += handler(value[hook], ("exec", "httpGet", "tcpSocket", "sleep"), f"{path}.{hook}", grace_s)
    return errors


def handler(value: Tree, kinds: tuple[str, ...], path: str, grace_s: int) -> list[FieldError]:
    """Exactly one of `kinds`; only the first is looked at."""
    given = [kind for kind in kinds if value.get(kind) is not None]
    if not given:
        return [f.required(path, "must specify a handler type")]
    errors = _action(given[0], value[given[0]], f"{path}.{given[0]}", grace_s)
    return errors + [f.forbidden(f"{path}.{kind}", "may not specify more than 1 handler type") for kind in given[1:]]


def _action(kind: str, action: Tree, path: str, grace_s: int) -> list[FieldError]:
    match kind:
        case "exec":
            return [] if action.get("command") else [f.required(f"{path}.command")]
        case "httpGet":
            return _http_get(action, path)
        case "sleep":
            seconds = action.get("seconds", 0)
            detail = f"must be non-negative and less than terminationGracePeriodSeconds ({grace_s})"
            return [] if 0 <= seconds <= grace_s else [f.invalid(path, seconds, detail)]
        case _:
            return port_or_name(action.get("port", 0), f"{path}.port")


def _http_get(action: Tree, path: str) -> list[FieldError]:
    errors = [] if action.get("path") else [f.required(f"{path}.path")]
    errors += port_or_name(action.get("port", 0), f"{path}.port")
    if action.get("scheme") not in ("HTTP", "HTTPS"):
        errors.append(f.not_supported(f"{path}.scheme", action.get("scheme", ""), ("HTTP", "HTTPS")))
    names = [header.get("name", "") for header in action.get("httpHeaders", [])]
    return errors + [f.invalid(f"{path}.httpHeaders", n, _HEADER_TEXT) for n in names if not _HEADER.fullmatch(n)]
