"""Who asks, and whether they may.  Pure.

Tokens come from a file as kube-apiserver's --token-auth-file; roles from a YAML file.  Everything is denied that
is not allowed; `system:masters` may do everything; an anonymous request may only ask after health and version.
"""

import csv
import hmac
import io
from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from svcplane.api.http import User
from svcplane.base.errors import ConfigError

MASTERS = "system:masters"
ANONYMOUS = User("system:anonymous", frozenset({"system:unauthenticated"}))
OPEN_PATHS = ("/healthz", "/livez", "/readyz", "/version")
READ_VERBS = ("get", "list", "watch")


def parse_tokens(text: str, source: str) -> dict[str, User]:
    """`token,user,uid,"group1,group2"` a line.  Raises ConfigError naming the line."""
    tokens: dict[str, User] = {}
    for number, row in enumerate(csv.reader(io.StringIO(text)), 1):
        if not row or row[0].lstrip().startswith("#"):
            continue
        if len(row) < 3 or not row[0].strip() or not row[1].strip():
            raise ConfigError(f'{source} line {number}: must be token,user,uid[,"group1,group2"]')
        groups = frozenset(group.strip() for group in (row[3].split(",") if len(row) > 3 else []) if group.strip())
        tokens[row[0].strip()] = User(row[1].strip(), groups | {"system:authenticated"}, row[2].strip())
    return tokens


def bearer(header: str, tokens: Mapping[str, User]) -> User | None:
    """The user of an Authorization header; None for a wrong one.  Compared in constant time."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        return None
    given = token.strip().encode()
    found = None
    for known, user in tokens.items():
        if hmac.compare_digest(known.encode(), given):
            found = user
    return found


@dataclass(frozen=True, slots=True)
class Rule:
    """`*` stands for all; no namespaces means every one and cluster-scoped objects too."""

    subjects: frozenset[str]
    verbs: frozenset[str]
    resources: frozenset[str]
    namespaces: frozenset[str]

    def allows(self, user: User, verb: str, resource: str, namespace: str) -> bool:
        who = {f"user:{user.name}", *(f"group:{group}" for group in user.groups)}
        return (
            bool(who & self.subjects)
            and bool({verb, "*"} & self.verbs)
            and bool({resource, "*"} & self.resources)
            and (not self.namespaces or namespace in self.namespaces)
        )


def parse_rules(text: str, source: str) -> tuple[Rule, ...]:
    """`rules: [{users, groups, verbs | role: admin|read-only, resources, namespaces}]`.  Raises ConfigError."""
    try:
        raw = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("rules", []), list):
        raise ConfigError(f"{source}: must hold a list `rules`")
    found = []
    for index, rule in enumerate(raw.get("rules", [])):
        place = f"{source}: rules[{index}]"
        if not isinstance(rule, dict):
            raise ConfigError(f"{place}: must be a mapping")
        unknown = set(rule) - {"users", "groups", "verbs", "role", "resources", "namespaces"}
        if unknown:
            raise ConfigError(f"{place}.{sorted(unknown)[0]}: unknown field")
        role = rule.get("role")
        if role not in (None, "admin", "read-only"):
            raise ConfigError(f"{place}.role: must be admin or read-only, not {role!r}")
        named = {field: _names(rule, field, place) for field in sorted(set(rule) - {"role"})}
        verbs = ["*"] if role == "admin" else list(READ_VERBS) if role else named.get("verbs", [])
        subjects = {f"user:{name}" for name in named.get("users", ())}
        subjects |= {f"group:{name}" for name in named.get("groups", ())}
        if not subjects or not verbs:
            raise ConfigError(f"{place}: needs users or groups, and a role or verbs")
        found.append(
            Rule(
                frozenset(subjects),
                frozenset(verbs),
                frozenset(named.get("resources", ["*"])),
                frozenset(named.get("namespaces", ())),
            )
        )
    return tuple(found)


def _names(rule: Mapping[str, object], field: str, place: str) -> list[str]:
    """A list with something in it: an empty one, where all is meant by leaving it out, would allow too much."""
    value = rule[field]
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name for name in value):
        raise ConfigError(f"{place}.{field}: must be a list of names, with at least one")
    return value


@dataclass(frozen=True, slots=True)
class Authorizer:
    rules: tuple[Rule, ...] = ()

    def allows(self, user: User, verb: str, resource: str, namespace: str) -> bool:
        if MASTERS in user.groups:
            return True
        return any(rule.allows(user, verb, resource, namespace) for rule in self.rules)

    def rules_for(self, user: User, namespace: str) -> list[Rule]:
        """Those that let the user do something in a namespace."""
        who = {f"user:{user.name}", *(f"group:{group}" for group in user.groups)}
        return [
            rule for rule in self.rules if who & rule.subjects and (not rule.namespaces or namespace in rule.namespaces)
        ]

    def allows_path(self, user: User | None, method: str, path: str) -> bool:
        """Paths that are no objects: health for all, discovery for whoever is known, metrics for whoever may get
        the resource `metrics`."""
        if user is not None and MASTERS in user.groups:
            return True
        if method not in ("GET", "HEAD"):
            return False
        if any(path == open_ or path.startswith(open_ + "/") for open_ in OPEN_PATHS):
            return True
        if user is None:
            return False
        return path != "/metrics" or self.allows(user, "get", "metrics", "")
