"""Acting as somebody else: the `Impersonate-*` headers.  Pure.

Source: k8s.io/apiserver/pkg/endpoints/filters/impersonation.go.  Who may is decided by the verb `impersonate` on
`users`, `groups` and `uids`.
"""

import dataclasses

from svcplane.api import status as st
from svcplane.api.http import Request, User
from svcplane.server.auth import Authorizer

AUTHENTICATED = "system:authenticated"


def acting(request: Request, authorizer: Authorizer) -> Request:
    """The request as of the user it is to be made as.  Raises StatusError 403."""
    name = request.headers.get("impersonate-user", "")
    groups = [part.strip() for part in request.headers.get("impersonate-group", "").split(",") if part.strip()]
    uid = request.headers.get("impersonate-uid", "")
    if not name and not groups and not uid:
        return request
    if request.user is None:
        raise st.unauthorized()
    if not name:
        given = ", ".join([*groups, *filter(None, (uid,))])
        raise st.bad_request(f"requested {given} without impersonating a user")
    wanted = [("users", name), *(("groups", group) for group in groups), *((("uids", uid),) if uid else ())]
    for resource, who in wanted:
        if not authorizer.allows(request.user, "impersonate", resource, ""):
            why = f'User "{request.user.name}" cannot impersonate resource "{resource}" in API group "" at the cluster'
            raise st.forbidden(resource, who, f"{why} scope")
    user = User(name, frozenset({*groups, AUTHENTICATED}), uid)
    return dataclasses.replace(request, user=user)
