"""What ports of Services, Endpoints and EndpointSlices have in common.  Pure."""

from svcplane.api import fields as f
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Tree
from svcplane.api.validation.names import qualified_name

PROTOCOLS = ("TCP", "UDP", "SCTP")


def protocol(port: Tree, path: str) -> list[FieldError]:
    """`protocol` is there and one of PROTOCOLS."""
    value = port.get("protocol")
    if value is None:
        return [f.required(f"{path}.protocol")]
    return [] if value in PROTOCOLS else [f.not_supported(f"{path}.protocol", value, PROTOCOLS)]


def app_protocol(port: Tree, path: str) -> list[FieldError]:
    """`appProtocol`, where given, is a qualified name."""
    value = port.get("appProtocol")
    if value is None:
        return []
    return [f.invalid(f"{path}.appProtocol", value, text) for text in qualified_name(value)]
