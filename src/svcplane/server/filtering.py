"""Which objects a request selects, by labels and fields.  Pure."""

from svcplane.api import codec
from svcplane.api.resources import Resource
from svcplane.api.selectors import FieldSelector, LabelSelector, fields_match
from svcplane.api.strategy import Strategy, Tree


class Filter:
    """Label and field selectors of one request; false where there are none."""

    def __init__(self, labels: LabelSelector, fields: FieldSelector, strategy: Strategy, resource: Resource) -> None:
        self._labels, self._fields, self._strategy, self._resource = labels, fields, strategy, resource

    def __bool__(self) -> bool:
        return bool(self._labels) or bool(self._fields)

    @property
    def has_fields(self) -> bool:
        return bool(self._fields)

    @property
    def name(self) -> str | None:
        """The one name that can match, where there is one alone."""
        return next((term.value for term in self._fields if term.field == "metadata.name" and term.equal), None)

    def matches(self, stored: bytes) -> bool:
        return not self or self.accepts(codec.load(stored, 0, self._resource))

    def accepts(self, obj: Tree) -> bool:
        """The same for one that is decoded."""
        meta = obj["metadata"]
        if not self._labels.matches(meta.get("labels", {})):
            return False
        if not self._fields:
            return True
        values = {"metadata.name": meta["name"], "metadata.namespace": meta.get("namespace", "")}
        return fields_match(self._fields, values | self._strategy.selectable_fields(obj))
