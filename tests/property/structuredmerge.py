"""What an apply comes to, said as sigs.k8s.io/structured-merge-diff says it: by sets of paths over whole trees.

Slow and plain, for tests: the server's own way looks at what differs.  Trees are of a kind of the schema; a path is of
`(how, name)`: `f` for a field of a struct, `m` for a key of a map, `k` for an item, `v` for a member of a set.
"""

from typing import Any

from svcplane.api.schema import Field, Type, fields_of

Path = tuple[tuple[str, Any], ...]
Paths = set[Path]
Child = tuple[tuple[str, Any], Any, Type, Field | None]
_NOBODYS = {(("f", "metadata"),), (("f", "metadata"), ("f", "name"))}


class Conflict(Exception):
    """Paths that others own."""


def _is_leaf(type_: Type, field: Field | None) -> bool:
    if type_.shape == "list":
        return field is None or not (field.list_keys or field.is_set)
    if type_.shape == "map":
        return field is not None and field.is_atomic
    return not type_.is_granular


def _children(value: Any, type_: Type, field: Field | None) -> dict[tuple[str, Any], Child]:
    found: list[Child] = []
    item = type_.item or type_
    if type_.shape == "struct":
        specs = fields_of(type_.name)
        found = [(("f", name), inner, specs[name].type, specs[name]) for name, inner in (value or {}).items()]
    elif type_.shape == "map":
        found = [(("m", name), inner, item, None) for name, inner in (value or {}).items()]
    else:
        keys = field.list_keys if field is not None else ()
        for inner in value or []:
            key = tuple(inner.get(name, "TCP" if name == "protocol" else None) for name in sorted(keys))
            found.append((("k", key) if keys else ("v", inner), inner, item, None))
    return {child[0]: child for child in found}


def owned(value: Any, type_: Type, field: Field | None = None, path: Path = ()) -> Paths:
    """What a tree sets."""
    if _is_leaf(type_, field):
        return {path}
    found: Paths = set()
    for element, inner, kind, spec in _children(value, type_, field).values():
        found |= owned(inner, kind, spec, (*path, element))
        if element[0] != "f" or inner == {}:
            found.add((*path, element))
    return found


def compared(before: Any, after: Any, type_: Type) -> tuple[Paths, Paths]:
    """What is new or has changed, and what is gone."""
    changed, gone = set[Path](), set[Path]()

    def walk(was: Child | None, now: Child | None, path: Path) -> None:
        _, _, kind, spec = now or was or ((), None, type_, None)
        if was is None or now is None:
            (changed if was is None else gone).add(path)
        if _is_leaf(kind, spec):
            if was is not None and now is not None and was[1] != now[1]:
                changed.add(path)
            return
        old = _children(was[1], kind, spec) if was else {}
        new = _children(now[1], kind, spec) if now else {}
        for element in old.keys() | new.keys():
            walk(old.get(element), new.get(element), (*path, element))

    walk((("f", ""), before, type_, None), (("f", ""), after, type_, None), ())
    return changed, gone


def merged(before: Any, given: Any, type_: Type, field: Field | None = None) -> Any:
    """One tree over another."""
    if _is_leaf(type_, field) or before is None:
        return given
    old, new = _children(before, type_, field), _children(given, type_, field)
    found = {
        element: merged(old[element][1] if element in old else None, new[element][1], *new[element][2:])
        if element in new
        else old[element][1]
        for element in [*old, *(element for element in new if element not in old)]
    }
    return list(found.values()) if type_.shape == "list" else {name: inner for (_, name), inner in found.items()}


def _without(value: Any, doomed: Paths, type_: Type, field: Field | None = None, path: Path = ()) -> Any:
    if _is_leaf(type_, field):
        return value
    kept = [
        (element[1], _without(inner, doomed, kind, spec, (*path, element)))
        for element, inner, kind, spec in _children(value, type_, field).values()
        if (*path, element) not in doomed
    ]
    return [inner for _, inner in kept] if type_.shape == "list" else dict(kept)


def _with_structs(paths: Paths) -> Paths:
    return paths | {path[:end] for path in paths for end in range(1, len(path)) if path[end - 1][0] == "f"}


class Model:
    """An object, and who owns what of it."""

    def __init__(self, kind: str, tree: dict[str, Any]) -> None:
        self.type, self.tree, self.owners = Type("struct", kind), tree, dict[str, Paths]()

    def update(self, tree: dict[str, Any], manager: str) -> None:
        changed, gone = compared(self.tree, tree, self.type)
        self._settle(
            tree,
            {name: paths - changed - gone for name, paths in self.owners.items()}
            | {manager: self.owners.get(manager, set()) - gone | changed},
        )

    def apply(self, given: dict[str, Any], manager: str, *, force: bool) -> None:
        """Raises Conflict."""
        last, owners = self.owners.get(manager, set()), self.owners | {manager: owned(given, self.type)}
        tree = merged(self.tree, given, self.type)
        all_owned = _with_structs(set[Path]().union(*owners.values()))
        left = owned(_without(tree, _with_structs(last), self.type), self.type)
        here = _with_structs(owned(tree, self.type))
        left = owned(_without(tree, here - _with_structs(left) - all_owned, self.type), self.type)
        tree = _without(tree, (here - _with_structs(left)) & _with_structs(last), self.type)
        changed, gone = compared(self.tree, tree, self.type)
        lost = {name: paths & changed for name, paths in owners.items() if name != manager and paths & changed}
        if lost and not force:
            raise Conflict
        owners = {name: paths if name == manager else paths - changed - gone for name, paths in owners.items()}
        self._settle(tree, owners)

    def _settle(self, tree: dict[str, Any], owners: dict[str, Paths]) -> None:
        self.tree = tree
        self.owners = {name: paths - _NOBODYS for name, paths in owners.items() if paths - _NOBODYS}
