"""Questions about who one is and what one may do: the review kinds, which are answered and not stored.

`kubectl auth can-i` and `kubectl auth whoami` ask them.  Source: pkg/registry/authorization,
pkg/registry/authentication.
"""

from collections.abc import Callable, Mapping
from typing import Any

from svcplane.api import codec
from svcplane.api import fields as f
from svcplane.api import status as st
from svcplane.api.fields import FieldError
from svcplane.api.http import Request, User
from svcplane.api.resources import REVIEWS, Resource
from svcplane.api.strategy import Tree
from svcplane.server.auth import MASTERS, OPEN_PATHS, Authorizer, bearer
from svcplane.server.negotiation import body_type
from svcplane.server.options import write_options

#: What anybody who is known may ask: about himself.
ABOUT_ONESELF = frozenset({"SelfSubjectAccessReview", "SelfSubjectRulesReview", "SelfSubjectReview"})
_BOTH = "cannot be specified in combination with resourceAttributes"
_NEITHER = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
_NOBODY = "at least one of user or group must be specified"


_BY_PATH = {row.path().strip("/"): row for row in REVIEWS}


def find(path: str) -> tuple[Resource, str] | None:
    """The review kind at a path, and the namespace in it."""
    path, namespace = path.strip("/"), ""
    parts = path.split("/")
    if len(parts) == 6 and parts[3] == "namespaces":
        namespace, path = parts[4], "/".join((*parts[:3], parts[5]))
    row = _BY_PATH.get(path)
    return (row, namespace) if row is not None and bool(namespace) == row.namespaced else None


class Reviews:
    """`tokens`: of whom TokenReview knows."""

    def __init__(self, authorizer: Authorizer, tokens: Mapping[str, User]) -> None:
        self._authorizer, self._tokens = authorizer, tokens
        self._answers: dict[str, Callable[[Tree, User, str], Tree]] = {
            "SelfSubjectAccessReview": self._self_access,
            "SubjectAccessReview": self._access,
            "LocalSubjectAccessReview": self._local_access,
            "SelfSubjectRulesReview": self._rules,
            "TokenReview": self._token,
            "SelfSubjectReview": self._whoami,
        }

    def answer(self, resource: Resource, namespace: str, request: Request) -> Tree:
        """The review with its status.  Raises StatusError."""
        user = request.user
        if user is None:
            raise st.unauthorized()
        if request.method != "POST":
            text = "the server does not allow this method on the requested resource"
            raise st.StatusError(405, "MethodNotAllowed", text, {})
        if resource.kind not in ABOUT_ONESELF:
            if not self._authorizer.allows(user, "create", resource.plural, namespace):
                why = f'User "{user.name}" cannot create resource "{resource.plural}" in API group "{resource.group}"'
                raise st.forbidden(resource.plural, "", f"{why} at the cluster scope", resource.group)
        review = self._decode(resource, request)
        review.setdefault("spec", {})
        review["status"] = self._answers[resource.kind](review, user, namespace)
        return review

    @staticmethod
    def _decode(resource: Resource, request: Request) -> Tree:
        options = write_options(request, "CreateOptions")
        decoded = codec.decode(request.body, body_type(request.headers.get("content-type", "")), resource)
        if decoded.problems and options.field_validation == "Strict":
            raise codec.strict_error(resource, decoded.problems)
        return decoded.tree

    # -- may somebody ---------------------------------------------------------------------------------------------

    def _self_access(self, review: Tree, user: User, namespace: str) -> Tree:
        return self._decide("SelfSubjectAccessReview", review["spec"], user, [])

    def _access(self, review: Tree, user: User, namespace: str) -> Tree:
        spec, errors = review["spec"], []
        if not spec.get("user") and not spec.get("groups"):
            errors.append(f.invalid("spec.user", spec.get("user", ""), _NOBODY))
        who = User(spec.get("user", ""), frozenset(spec.get("groups", ())), spec.get("uid", ""))
        return self._decide(review["kind"], spec, who, errors)

    def _local_access(self, review: Tree, user: User, namespace: str) -> Tree:
        asked = (review["spec"].get("resourceAttributes") or {}).get("namespace", "")
        if asked != namespace:
            why = "must match metadata.namespace"
            error = f.invalid("spec.resourceAttributes.namespace", asked, why)
            raise st.invalid(review["kind"], "", [error], "authorization.k8s.io")
        return self._access(review, user, namespace)

    def _decide(self, kind: str, spec: Tree, who: User, errors: list[FieldError]) -> Tree:
        resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        if resource is not None and path is not None:
            errors.append(f.invalid("spec.nonResourceAttributes", path, _BOTH))
        if resource is None and path is None:
            errors.append(f.invalid("spec.resourceAttributes", None, _NEITHER))
        if errors:
            raise st.invalid(kind, "", errors, "authorization.k8s.io")
        if resource is not None:
            name = resource.get("resource", "")
            name += f"/{resource['subresource']}" if resource.get("subresource") else ""
            allowed = self._authorizer.allows(who, resource.get("verb", ""), name, resource.get("namespace", ""))
        elif path is not None:
            method = path.get("verb", "").upper()
            allowed = self._authorizer.allows_path(who, method, path.get("path", ""))
        else:
            allowed = False
        return {"allowed": allowed}

    def _rules(self, review: Tree, user: User, namespace: str) -> Tree:
        namespace = review["spec"].get("namespace", "")
        if not namespace:
            raise st.bad_request("no namespace on request")
        rules: list[Tree] = []
        if MASTERS in user.groups:
            rules.append({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})
        for rule in self._authorizer.rules_for(user, namespace):
            found = {"verbs": sorted(rule.verbs), "apiGroups": ["*"], "resources": sorted(rule.resources)}
            rules.append(found)
        for row in REVIEWS:
            if row.kind in ABOUT_ONESELF:
                rules.append({"verbs": ["create"], "apiGroups": [row.group], "resources": [row.plural]})
        everything = MASTERS in user.groups
        paths = ["*"] if everything else ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", *OPEN_PATHS]
        verbs = ["*"] if everything else ["get"]
        return {
            "resourceRules": rules,
            "nonResourceRules": [{"verbs": verbs, "nonResourceURLs": paths}],
            "incomplete": False,
        }

    # -- who is somebody ------------------------------------------------------------------------------------------

    def _token(self, review: Tree, user: User, namespace: str) -> Tree:
        token = review["spec"].get("token", "")
        if not token:
            raise st.bad_request("token is required for TokenReview in authentication")
        found = bearer(f"Bearer {token}", self._tokens)
        if found is None:
            return {"user": {}, "error": "invalid bearer token"}
        return {"authenticated": True, "user": _user(found)}

    @staticmethod
    def _whoami(review: Tree, user: User, namespace: str) -> Tree:
        review.pop("spec", None)
        return {"userInfo": _user(user)}


def _user(user: User) -> dict[str, Any]:
    found = {"username": user.name, "uid": user.uid, "groups": sorted(user.groups)}
    return {key: value for key, value in found.items() if value}
