"""Who a container's process is: user, group, further groups.  Pure.

Source: core/v1 SecurityContext and PodSecurityContext; a container runtime's group is 0 where only a user is given.
"""

import os
from dataclasses import dataclass

from svcplane.api.core import Container, Pod, PodSecurityContext, SecurityContext
from svcplane.base.errors import SvcplaneError


class MustNotBeRoot(SvcplaneError):
    """runAsNonRoot is asked for, and the process would be root (`CreateContainerConfigError`)."""


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...]


def own_user() -> User:
    """That of this process, which containers have whose Pod asks for none."""
    return User(os.getuid(), os.getgid(), tuple(sorted({os.getgid(), *os.getgroups()})))


def user_of(pod: Pod, container: Container) -> User | None:
    """What the Pod asks for; None: that of the agent.  Raises MustNotBeRoot."""
    all_of, own = pod.spec.security_context or PodSecurityContext(), container.security_context or SecurityContext()
    uid = own.run_as_user if own.run_as_user is not None else all_of.run_as_user
    gid = own.run_as_group if own.run_as_group is not None else all_of.run_as_group
    not_root = own.run_as_non_root if own.run_as_non_root is not None else all_of.run_as_non_root
    if not_root and not uid:
        meta = pod.metadata
        about = f'(pod: "{meta.name}_{meta.namespace}({meta.uid})", container: {container.name})'
        if uid is None:
            raise MustNotBeRoot(f"container has runAsNonRoot and would run as root: set runAsUser {about}")
        raise MustNotBeRoot(f"container's runAsUser breaks non-root policy {about}")
    more = [*all_of.supplemental_groups, *([all_of.fs_group] if all_of.fs_group is not None else [])]
    if uid is None and gid is None and not more:
        return None
    return User(uid or 0, gid or 0, tuple(sorted({gid or 0, *more})))
