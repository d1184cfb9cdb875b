"""What representation a client accepts.  Pure.  Source: k8s.io/apiserver/pkg/endpoints/handlers/negotiation."""

from typing import Any

import msgspec

from svcplane.api import protobuf
from svcplane.api.status import StatusError

#: The version of the forms.
FORMS = "meta.k8s.io/v1"
JSON, YAML = "application/json", "application/yaml"
_OFFERED = f"{JSON}, {YAML}, {protobuf.MEDIA_TYPE}"
_STREAMED = f"{JSON};stream=watch, {protobuf.MEDIA_TYPE};stream=watch"
#: Routes know no other range than that of everything.
_ROUTED = {"*/*", JSON, YAML}
_TYPES = {*_ROUTED, "application/*"}


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """`form`: `` (the object), Table, PartialObjectMetadata, PartialObjectMetadataList, or
    APIGroupDiscoveryList for aggregated discovery; `version` is that of the form."""

    media_type: str = JSON
    form: str = ""
    version: str = ""


def _clause(text: str) -> tuple[str, dict[str, str]]:
    """A media range and its parameters."""
    media, *parameters = (part.strip() for part in text.split(";"))
    return media, dict(parameter.partition("=")[::2] for parameter in parameters)


def _rank(clause: tuple[str, dict[str, str]]) -> tuple[float, bool, bool]:
    """Clauses of a higher quality come first, then those without wildcards; others keep their order."""
    media, values = clause
    try:
        quality = float(values.get("q", "1"))
    except ValueError:
        quality = 1.0
    return -quality, media.startswith("*"), media.endswith("*")


def accept(header: str, *, streamed: bool = False, grouped: bool = False) -> Wanted:
    """The best acceptable clause; protobuf is passed over, as a server that does not offer it does.

    `streamed`: of a list or a watch; `grouped`: of a document that comes as aggregated discovery too.  Raises
    StatusError 406: upstream's routes look at the types alone, then its handlers at the forms too.
    """
    if not header.strip():
        return Wanted()
    clauses = [_clause(text) for text in header.split(",")]
    if not any(media in _ROUTED for media, _ in clauses):
        available = f"{_OFFERED}, {_STREAMED}" if streamed else _OFFERED
        raise StatusError(406, "NotAcceptable", f"406: Not Acceptable\n\nAvailable representations: {available}", {})
    for media, values in sorted(clauses, key=_rank):
        if media not in _TYPES:
            continue
        form = values.get("as", "")
        if form in ("Table", "PartialObjectMetadata", "PartialObjectMetadataList") and values.get("g") == "meta.k8s.io":
            if values.get("v") not in ("v1", "v1beta1"):
                continue
        elif form == "APIGroupDiscoveryList" and grouped:
            if values.get("v") not in ("v2", "v2beta1"):
                continue
        elif form:
            continue
        return Wanted(YAML if media == YAML else JSON, form, values.get("v", ""))
    raise StatusError(406, "NotAcceptable", f"only the following media types are accepted: {_OFFERED}")


def body_type(header: str) -> str:
    """The media type of a request body.  Raises StatusError 415."""
    media = header.partition(";")[0].strip() or JSON
    if media in (JSON, YAML, protobuf.MEDIA_TYPE):
        return media
    raise StatusError(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json, application/yaml, application/vnd.kubernetes.protobuf",
    )


def in_version(shown: dict[str, Any], version: str) -> dict[str, Any]:
    """A table, metadata or a list of them in the version asked for: v1beta1 differs from v1 in its name alone."""
    if version != "v1beta1":
        return shown
    inner = [*shown.get("items", []), *(row["object"] or {} for row in shown.get("rows", []))]
    for part in (shown, *inner):
        if part.get("apiVersion") == FORMS:
            part["apiVersion"] = FORMS + "beta1"
    return shown


def not_in_form(form: str, why: str) -> StatusError:
    """406: what was asked for does not come in the form that is accepted."""
    return StatusError(406, "NotAcceptable", f"you requested {form}, but the requested object {why}", {})


def not_streamed() -> StatusError:
    """406: events do not come in YAML."""
    return StatusError(406, "NotAcceptable", f"only the following media types are accepted: {_STREAMED}")
