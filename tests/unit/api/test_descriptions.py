"""What `kubectl explain` shows of types and fields."""

from svcplane.api.resources import RESOURCES
from svcplane.api.schema import Type, description, fields_of
from svcplane.server.discovery import definition, definitions

#: Pods and Nodes have hundreds of fields that mean nothing to Services.
OURS = ("Service", "Endpoints", "EndpointSlice", "Lease", "IPAddress", "ServiceCIDR", "Namespace", "Event")


def structs(name: str, seen: set[str]) -> set[str]:
    """The type and all it is made of."""
    if name not in seen:
        seen.add(name)
        for field in fields_of(name).values():
            inner: Type | None = field.type
            while inner is not None and inner.item is not None:
                inner = inner.item
            if inner is not None and inner.shape == "struct":
                structs(inner.name, seen)
    return seen


def test_every_field_of_what_services_are_made_of_is_explained() -> None:
    seen: set[str] = set()
    for kind in OURS:
        structs(kind, seen)
    plain = [f"{name}.{field}" for name in seen for field in fields_of(name)]
    plain = [place for place in plain if description(*place.split(".")) == "{1} of {0}.".format(*place.split("."))]
    assert sorted(plain) == []


def test_every_kind_has_a_description_of_its_own() -> None:
    found = definitions("#/definitions/")
    for resource in RESOURCES:
        assert found[definition(resource.kind)]["description"] != resource.kind
