"""Which Pods of which Services have changed since their last sync, so that a sync looks at those only.  Pure."""


class Dirty:
    """By the Service's key."""

    def __init__(self) -> None:
        self._pods: dict[str, set[str] | None] = {}

    def all(self, key: str) -> None:
        """Anything may have changed."""
        self._pods[key] = None

    def pod(self, key: str, pod: str) -> None:
        pods = self._pods.setdefault(key, set())
        if pods is not None:
            pods.add(pod)

    def take(self, key: str) -> set[str] | None:
        """The Pods' keys; None: all of them, and the Service itself.  Clean from now on."""
        return self._pods.pop(key, set())
