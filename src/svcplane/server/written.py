"""What the verbs that write share: their answer, and the checks of an object against its request."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from svcplane.api import codec
from svcplane.api import fields as f
from svcplane.api import status as st
from svcplane.api.resources import ENDPOINTS, NODES, SERVICES
from svcplane.api.strategy import Strategy, Tree
from svcplane.server.allocation import Allocated
from svcplane.server.options import version_number
from svcplane.server.routes import Route
from svcplane.store.contract import KeyValue, Put, Revision, Store, Transaction, Unchanged

CHANGED = "the object has been modified; please apply your changes to the latest version and try again"
#: Where upstream keeps kinds whose place is not their plural.
_SEGMENTS = {SERVICES: "services/specs", ENDPOINTS: "services/endpoints", NODES: "minions"}
TOPOLOGY_LABELS = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone")
#: How often a write that others got in the way of is tried again.
TRIES = 50


@dataclass(slots=True)
class Written:
    """`stored` and `revision` of what to answer; revision 0: a dry run, which shows no resourceVersion.
    `body` instead, where a Status is the answer."""

    status: int
    stored: bytes = b""
    revision: int = 0
    warnings: list[str] = field(default_factory=list)
    body: Tree | None = None


async def commit(
    store: Store,
    key: str,
    stored: bytes,
    based_on: Revision,
    allocated: Allocated,
    more: tuple[Unchanged, ...] = (),
) -> Revision:
    """Put an object and what was allocated for it.  Raises PreconditionFailed where somebody was quicker."""
    conditions = (Unchanged(key, based_on), *more, *allocated.preconditions)
    return await store.commit(Transaction((Put(key, stored), *allocated.operations), conditions))


async def node_topology(store: Store, node: str) -> dict[str, str]:
    """Zone and region of a node, which its Pods get as labels.  Source: plugin/pkg/admission/podtopologylabels."""
    item = await store.get(NODES.key("", node))
    if item is None:
        return {}
    labels: dict[str, str] = codec.load(item.value, item.revision, NODES)["metadata"].get("labels", {})
    return {key: labels[key] for key in TOPOLOGY_LABELS if key in labels}


def attempts(tree: Tree, *, anew: bool) -> Iterator[Tree]:
    """The tree for each try.  A try changes it; with `anew`, the next begins with what it was."""
    kept = codec.encode(tree) if anew else b""
    yield tree
    for _ in range(TRIES - 1):
        yield codec.decode_tree(kept) if anew else tree


def copied(tree: Tree) -> Tree:
    """A deep copy of what JSON can hold; several times faster than the general one."""
    return {key: _copied_value(value) for key, value in tree.items()}


def _copied_value(value: object) -> object:
    if isinstance(value, dict):
        return {key: _copied_value(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied_value(inner) for inner in value]
    return value


def match_namespace(obj: Tree, route: Route) -> None:
    """The namespace of a request is the object's; kinds without namespaces let one go that is given."""
    if not route.resource.namespaced:
        obj["metadata"].pop("namespace", None)
        return
    given = obj["metadata"].get("namespace", "")
    if given and given != route.namespace:
        raise st.bad_request("the namespace of the provided object does not match the namespace sent on the request")
    obj["metadata"]["namespace"] = route.namespace


def match_name(obj: Tree, route: Route) -> None:
    name = obj["metadata"].get("name", "")
    if not name:
        raise st.bad_request(
            f"the name of the object ({route.name} based on URL) was undeterminable: name must be provided"
        )
    if name != route.name:
        raise st.bad_request(f"the name of the object ({name}) does not match the name on the URL ({route.name})")


def check_uid(new: Tree, item: KeyValue | None, route: Route) -> None:
    """An update of an object that has gone, or been replaced by another of its name, is a conflict, in the store's
    words."""
    given = new["metadata"].get("uid")
    if not given:
        return
    found = codec.load(item.value, item.revision, route.resource)["metadata"].get("uid") if item else ""
    if given != found:
        raise unmet(route, "UID", given, found)


def unmet(route: Route, what: str, given: str, found: str) -> st.StatusError:
    """A write demanded an object with another UID or ResourceVersion (`what`)."""
    segment = _SEGMENTS.get(route.resource, route.resource.plural)
    place = "/".join(part for part in ("/registry", segment, route.namespace, route.name) if part)
    return st.conflict(
        route.resource.plural,
        route.name,
        f"StorageError: invalid object, Code: 4, Key: {place}, ResourceVersion: 0, AdditionalErrorMsg: "
        f"Precondition failed: {what} in precondition: {given}, {what} in object meta: {found}",
        route.resource.group,
    )


def keep_system_fields(new: Tree, old: Tree, item: KeyValue) -> None:
    """What an updater cannot change stays: names of the object in time, and the marks of its deletion."""
    meta, before = new["metadata"], old["metadata"]
    if not meta.get("uid"):
        meta["uid"] = before["uid"]
    for key in ("creationTimestamp", "generation", "selfLink"):
        if key in before:
            meta[key] = before[key]
        else:
            meta.pop(key, None)
    if before.get("deletionTimestamp"):
        meta["deletionTimestamp"] = before["deletionTimestamp"]
    if "deletionGracePeriodSeconds" in before:
        meta.setdefault("deletionGracePeriodSeconds", before["deletionGracePeriodSeconds"])
    meta["resourceVersion"] = str(item.revision)
    if meta.get("managedFields") is None and before.get("managedFields"):
        meta["managedFields"] = before["managedFields"]


def says_version(meta: Tree) -> bool:
    """Whether a new object has a resourceVersion; one that is no number is not looked at."""
    try:
        return bool(version_number(meta.get("resourceVersion", "")))
    except ValueError:
        return False


def given_version(obj: Tree) -> int:
    """The version an update is based on, 0 where it tells of none.  Raises StatusError 500, as upstream does."""
    try:
        return version_number(obj["metadata"].get("resourceVersion", ""))
    except ValueError as error:
        raise st.StatusError(500, "", str(error)) from error


def check_version(obj: Tree, item: KeyValue, route: Route, strategy: Strategy) -> None:
    """The version an update is based on: the newest, or none where the kind allows that."""
    resource, given = route.resource, given_version(obj)
    if not given and not strategy.allow_unconditional_update:
        error = f.invalid("metadata.resourceVersion", 0, "must be specified for an update")
        raise st.invalid(resource.plural, route.name, [error], resource.group)
    if given and given != item.revision:
        raise st.conflict(resource.plural, route.name, CHANGED, resource.group)
