"""How many descriptors a process may have: a relayed connection takes two, a service port one for each worker."""

import resource

DESCRIPTORS = 1 << 20  # at least wanted


def raise_descriptor_limit() -> None:
    """As far as this process may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (DESCRIPTORS, most):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, most)))
        except (OSError, ValueError):
            continue  # more needs CAP_SYS_RESOURCE, and nr_open may be less
        return
