"""What representation a client accepts.  Pure.  Source: k8s.io/apiserver/pkg/endpoints/handlers/negotiation."""

from dataclasses import dataclass

from svcplane.api import protobuf
from svcplane.api.status import StatusError

JSON, YAML = "application/json", "application/yaml"
_AVAILABLE = (
    "application/json, application/yaml, application/vnd.kubernetes.protobuf, "
    "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
)
_TYPES = {"*/*", "application/*", JSON, YAML}


@dataclass(frozen=True, slots=True)
class Wanted:
    """`form`: `` (the object), Table, PartialObjectMetadata, PartialObjectMetadataList, or
    APIGroupDiscoveryList for aggregated discovery (with its `version`)."""

    media_type: str = JSON
    form: str = ""
    version: str = ""


def accept(header: str) -> Wanted:
    """The first acceptable clause; protobuf is passed over, as a server that does not offer it does.

    Raises StatusError 406.
    """
    if not header.strip():
        return Wanted()
    for clause in header.split(","):
        media, *parameters = (part.strip() for part in clause.split(";"))
        values = dict(parameter.partition("=")[::2] for parameter in parameters)
        if media not in _TYPES:
            continue
        form = values.get("as", "")
        if form in ("Table", "PartialObjectMetadata", "PartialObjectMetadataList") and values.get("g") == "meta.k8s.io":
            if values.get("v") not in ("v1", "v1beta1"):
                continue
        elif form == "APIGroupDiscoveryList":
            if values.get("v") not in ("v2", "v2beta1"):
                continue
        elif form:
            continue
        return Wanted(YAML if media == YAML else JSON, form, values.get("v", ""))
    raise StatusError(406, "NotAcceptable", f"406: Not Acceptable\n\nAvailable representations: {_AVAILABLE}", {})


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


def not_in_form(form: str, why: str) -> StatusError:
    """406: what was asked for does not come in the form that is accepted."""
    return StatusError(406, "NotAcceptable", f"you requested {form}, but the requested object {why}", {})
