"""Owner references that are given twice: one is kept, and the client is warned.  Pure.

Source: k8s.io/apiserver/pkg/endpoints/handlers/rest.go, dedupOwnerReferences.
"""

from svcplane.api.strategy import Tree

_WARNING = (
    ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, "
    "and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {uids}"
)


def drop_duplicate_owners(obj: Tree, *, patched: bool) -> list[str]:
    """Take repeated references out of `obj`, which must fit the schema; the warning, if there were any.

    Only references that are equal in every field repeat each other.  `patched`: a patch made the object, which
    upstream looks at later than at one that was sent, and says so.
    """
    given = obj["metadata"].get("ownerReferences")
    if not given:
        return []
    kept: list[Tree] = []
    repeated: list[str] = []
    for reference in given:
        if reference in kept:
            repeated.append(reference.get("uid", ""))
        else:
            kept.append(reference)
    if not repeated:
        return []
    obj["metadata"]["ownerReferences"] = kept
    when = " after mutating admission happens" if patched else ""
    return [_WARNING.format(when=when, uids=", ".join(repeated))]
