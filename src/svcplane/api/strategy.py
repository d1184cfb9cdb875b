"""What is particular to one kind when the server writes it: a Strategy.  Pure.

Objects on the server are whole JSON trees (`dict[str, Any]`, decoded and type-checked against `api.schema`, with
`apiVersion`, `kind`, and `metadata`); methods that prepare or default change the tree in place.  The order of
a write is upstream's: decode -> default -> prepare -> allocate (Services only, see `server.allocation`) ->
validate -> commit.  Metadata common to all kinds (names, labels, uid, timestamps, generation,
resourceVersion) is the registry's business, not the Strategy's.

Source: `k8s.io/apiserver/pkg/registry/rest` RESTCreateStrategy, RESTUpdateStrategy.
"""

from typing import Any

from svcplane.api.fields import FieldError
from svcplane.api.resources import Resource

Tree = dict[str, Any]


def default_conditions(status: Tree) -> None:
    """What JSON shows of a `metav1.Condition` even where nobody has set it."""
    for condition in status.get("conditions", []):
        condition.setdefault("lastTransitionTime", None)
        for field in ("type", "status", "reason", "message"):
            condition.setdefault(field, "")


class Strategy:
    """The neutral strategy; a kind overrides what it needs."""

    #: Whether changes of spec increase metadata.generation (starts at 1).
    has_generation = False
    #: A PUT of an absent object creates it (upstream: Endpoints, EndpointSlices no; Leases, Events yes).
    allow_create_on_update = False
    #: A PUT without resourceVersion is accepted.
    allow_unconditional_update = True
    #: How often upstream looks at metadata in an update, beyond the once for all kinds; each time counts as a
    #: cause.  `metadata_changes_again`: the rules for changes and the rules for any time; `metadata_again`:
    #: those for any time alone.
    metadata_changes_again = True
    metadata_again = False
    #: Finalizers without a domain must be Kubernetes' own.
    checks_finalizers = True
    #: A name is made of `generateName` by a suffix; otherwise it is the name as it is.
    adds_suffix = True

    def __init__(self, resource: Resource) -> None:
        self.resource = resource

    def default(self, obj: Tree) -> None:
        """Apply the kind's API defaults, as the scheme's defaulting functions do on each decode."""

    def prepare_create(self, obj: Tree) -> None:
        """Drop what a creator may not set (status, ...)."""

    def validate_name(self, name: str, *, prefix: bool = False) -> list[str]:
        """What is wrong with metadata.name (`prefix`: with generateName); default DNS-1123 subdomain."""
        from svcplane.api.validation.names import dns1123_subdomain

        return dns1123_subdomain(name, prefix=prefix)

    def validate_create(self, obj: Tree) -> list[FieldError]:
        return []

    def prepare_update(self, obj: Tree, old: Tree) -> None:
        """Take over from `old` what an updater of the main resource may not change (status, ...)."""

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        return []

    def prepare_status_update(self, obj: Tree, old: Tree) -> None:
        """For the status subresource: everything but status (and metadata it may change) from `old`."""
        status = obj.get("status")
        for key in [key for key in obj if key not in ("metadata", "apiVersion", "kind")]:
            del obj[key]
        obj.update(
            {key: value for key, value in old.items() if key not in ("metadata", "apiVersion", "kind", "status")}
        )
        if status is not None:
            obj["status"] = status

    def validate_status_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        return []

    def validate_finalize(self, obj: Tree, old: Tree) -> list[FieldError]:
        """For the subresource `finalize` of Namespaces."""
        return []

    def warnings(self, obj: Tree, old: Tree | None) -> list[str]:
        """Texts of Warning headers for a create (`old` None) or update."""
        return []

    def status_warnings(self, obj: Tree, old: Tree) -> list[str]:
        """The same for an update of the subresource `status`."""
        return []

    def selectable_fields(self, obj: Tree) -> dict[str, str]:
        """Values of the field selectors this kind offers beyond metadata.name and metadata.namespace."""
        return {}

    #: Names of those field selectors.
    selectable: tuple[str, ...] = ()

    def grace_period_on_delete(self, obj: Tree, asked_s: int | None) -> int | None:
        """The grace period to apply to a delete that asked for `asked_s`; None or 0: delete at once."""
        return None
