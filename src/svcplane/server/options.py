"""Options of requests, read and checked.  Pure.  Source: metav1 CreateOptions, ListOptions, DeleteOptions, ..."""

import re
from dataclasses import dataclass

import msgspec

from svcplane.api import codec, go_json, protobuf
from svcplane.api import fields as f
from svcplane.api.http import Request
from svcplane.api.status import StatusError, bad_request, invalid
from svcplane.server.negotiation import body_type

MEDIA = "meta.k8s.io"


def _refuse(kind: str, errors: list[f.FieldError]) -> None:
    if errors:
        raise invalid(kind, "", errors, MEDIA)


def _given(request: Request, name: str) -> str | None:
    """The first value of a parameter; None where it is not given, which may be told apart from an empty one."""
    return next((value for key, value in request.query if key == name), None)


def flag(request: Request, name: str) -> bool | None:
    """A parameter that is there or not: anything but `false` and `0` is yes; None where it is not given."""
    given = _given(request, name)
    return None if given is None else given.lower() not in ("false", "0")


def version_number(text: str) -> int:
    """The number of a resourceVersion; none is 0.  Raises ValueError as Go words it."""
    fault = ""
    if text and not (text.isascii() and text.isdigit()):
        fault = "invalid syntax"
    elif text and int(text) >= 1 << 64:
        fault = "value out of range"
    if fault:
        raise ValueError(f"strconv.ParseUint: parsing {f.quoted(text)}: {fault}")
    return int(text or 0)


def checked_version(text: str) -> str:
    """A resourceVersion.  Upstream takes a bad one for a fault of its own, and answers 500."""
    try:
        version_number(text)
    except ValueError as error:
        raise StatusError(500, "", str(f.invalid("resourceVersion", text, str(error)))) from error
    return text


_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)")
_UNITS = ("ns", "us", "µs", "μs", "ms", "s", "m", "h")


def check_timeout(request: Request) -> None:
    """How long the client wants to wait must be a duration; nothing here takes so long.  Raises StatusError 400."""
    if text := request.param("timeout"):
        if why := _no_duration(text):
            raise bad_request(f"invalid timeout specified in the request URL - time: {why}")


def _no_duration(text: str) -> str:
    """Why Go's time.ParseDuration refuses a text, if it does."""
    rest, shown = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+"), f.quoted(text)
    if rest == "0":
        return ""
    if not rest:
        return f"invalid duration {shown}"
    while rest:
        part = _DURATION.match(rest)
        if part is None:
            return f"invalid duration {shown}"
        if not part[2]:
            return f"missing unit in duration {shown}"
        if part[2] not in _UNITS:
            return f"unknown unit {f.quoted(part[2])} in duration {shown}"
        rest = rest[part.end() :]
    return ""


def included(request: Request) -> str:
    """How much of each object the rows of a table carry: Metadata, Object or None.  Raises StatusError 422."""
    include = request.param("includeObject") or "Metadata"
    if include not in ("Metadata", "Object", "None"):
        detail = "must be 'Metadata', 'Object', 'None', or empty"
        _refuse("TableOptions", [f.invalid("includeObject", include, detail)])
    return include


class WriteOptions(msgspec.Struct, frozen=True, gc=False):
    """`field_validation`: Ignore, Warn (the default) or Strict."""

    dry_run: bool
    field_validation: str
    field_manager: str
    force: bool = False


def manager_name(request: Request) -> str:
    """The field manager: as asked, else the first part of the User-Agent."""
    asked = request.param("fieldManager")
    if asked:
        return asked
    agent = request.headers.get("user-agent", "").partition("/")[0]
    return agent[:128] or "unknown"


def write_options(request: Request, kind: str) -> WriteOptions:
    """`kind`: CreateOptions, UpdateOptions or PatchOptions."""
    errors: list[f.FieldError] = []
    dry_run = [value for key, value in request.query if key == "dryRun"]
    if any(value != "All" for value in dry_run):
        errors.append(f.not_supported("dryRun", dry_run, ("All",)))
    validation = request.param("fieldValidation") or "Warn"
    if validation not in ("Ignore", "Warn", "Strict"):
        errors.append(f.not_supported("fieldValidation", validation, ("", "Ignore", "Strict", "Warn")))
    manager = request.param("fieldManager")
    if len(manager) > 128:
        errors.append(f.too_long("fieldManager", 128))
    for at, char in enumerate(manager):
        if not char.isprintable():
            detail = f"invalid character U+{ord(char):04X} (at position {len(manager[:at].encode())})"
            errors.append(f.invalid("fieldManager", manager, detail))
    is_apply = request.headers.get("content-type", "").startswith("application/apply-patch")
    if kind == "PatchOptions" and is_apply and not manager:
        errors.append(f.required("fieldManager", "is required for apply patch"))
    force = flag(request, "force")
    if kind == "PatchOptions" and not is_apply and force is not None:
        errors.append(f.forbidden("force", "may not be specified for non-apply patch"))
    _refuse(kind, errors)
    return WriteOptions(bool(dry_run), validation, manager_name(request), bool(force))


@dataclass(frozen=True, slots=True)
class ListOptions:
    """`send_initial_events` is None where the client did not say."""

    label_selector: str
    field_selector: str
    limit: int
    continue_: str
    resource_version: str
    match: str
    timeout_s: float | None
    bookmarks: bool
    send_initial_events: bool | None


def list_options(request: Request, *, watch: bool) -> ListOptions:
    limit, timeout = _number(request, "limit"), _number(request, "timeoutSeconds")
    options = ListOptions(
        request.param("labelSelector"),
        request.param("fieldSelector"),
        max(0, limit or 0),
        request.param("continue"),
        request.param("resourceVersion"),
        request.param("resourceVersionMatch"),
        None if timeout is None else float(timeout),
        bool(flag(request, "allowWatchBookmarks")),
        flag(request, "sendInitialEvents"),
    )
    _refuse("ListOptions", _list_faults(options, watch))
    checked_version(options.resource_version)
    return options


def _number(request: Request, name: str) -> int | None:
    text = _given(request, name)
    if text is None:
        return None
    if not re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        raise bad_request(f"strconv.ParseInt: parsing {f.quoted(text)}: invalid syntax")
    if len(text) > 20 or not -(1 << 63) <= int(text) < 1 << 63:
        raise bad_request(f"strconv.ParseInt: parsing {f.quoted(text)}: value out of range")
    return int(text)


def _list_faults(options: ListOptions, watch: bool) -> list[f.FieldError]:
    errors: list[f.FieldError] = []
    match, version = options.match, options.resource_version
    if watch:
        return _watch_faults(options)
    if match:
        if not version:
            errors.append(
                f.forbidden(
                    "resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided"
                )
            )
        if options.continue_:
            errors.append(
                f.forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")
            )
        if match not in ("Exact", "NotOlderThan"):
            errors.append(
                f.not_supported("resourceVersionMatch", match, ("Exact", "NotOlderThan", ""), keep_order=True)
            )
        if match == "Exact" and version == "0":
            detail = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            errors.append(f.forbidden("resourceVersionMatch", detail))
    if options.send_initial_events is not None:
        errors.append(f.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return errors


def _watch_faults(options: ListOptions) -> list[f.FieldError]:
    errors: list[f.FieldError] = []
    match = options.match
    if options.send_initial_events is not None:
        if match != "NotOlderThan":
            detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            errors.append(f.forbidden("resourceVersionMatch", detail))
    elif match:
        detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        errors.append(f.forbidden("resourceVersionMatch", detail))
    if match and match != "NotOlderThan":
        errors.append(f.not_supported("resourceVersionMatch", match, ("NotOlderThan",)))
    if match and options.continue_:
        errors.append(
            f.forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")
        )
    return errors


class Preconditions(msgspec.Struct, rename="camel"):
    uid: str | None = None
    resource_version: str | None = None


class DeleteOptions(msgspec.Struct, rename="camel"):
    """Of the body; of the query where there is no body: with one the query is not looked at, as upstream does."""

    kind: str = ""
    api_version: str = ""
    grace_period_seconds: int | None = None
    preconditions: Preconditions | None = None
    orphan_dependents: bool | None = None
    propagation_policy: str | None = None
    dry_run: list[str] | None = None

    @property
    def is_dry_run(self) -> bool:
        return bool(self.dry_run)


_GO_TYPES = {
    "gracePeriodSeconds": (int, "int64"),
    "preconditions": (dict, "v1.Preconditions"),
    "orphanDependents": (bool, "bool"),
    "propagationPolicy": (str, "v1.DeletionPropagation"),
    "dryRun": (list, "[]string"),
}


def _wrong_type(body: bytes, media: str) -> str:
    """What Go says of the first option of a wrong type; nothing where the body is no object or all of them fit."""
    try:
        given, _ = codec.parse_body(body, media)
    except ValueError:
        return ""
    if not isinstance(given, dict):
        found, known = go_json.type_name(given), codec.KIND_STRUCT
        return f"{codec.NO_KIND}json: cannot unmarshal {found} into Go value of type {known}"
    if fault := codec.kind_fault(given):
        return codec.NO_KIND + fault
    for key, value in given.items():
        expected, name = _GO_TYPES.get(key, (object, ""))
        if value is not None and (not isinstance(value, expected) or (expected is int and isinstance(value, bool))):
            found = f"number {value}" if expected is int and isinstance(value, float) else go_json.type_name(value)
            return f"json: cannot unmarshal {found} into Go struct field DeleteOptions.{key} of type {name}"
    if (odd := next((item for item in given.get("dryRun") or () if not isinstance(item, str)), "")) != "":
        return (
            f"json: cannot unmarshal {go_json.type_name(odd)} into Go struct field DeleteOptions.dryRun of type string"
        )
    for key, name in (("uid", "types.UID"), ("resourceVersion", "string")):
        value = (given.get("preconditions") or {}).get(key)
        if not isinstance(value, str | None):
            found = go_json.type_name(value)
            return (
                f"json: cannot unmarshal {found} into Go struct field Preconditions.preconditions.{key} of type {name}"
            )
    return ""


def delete_options(request: Request) -> DeleteOptions:
    """What a deletion asks for.  Raises StatusError: 500 for a body that is no DeleteOptions, as upstream does, 422 for
    options that do not fit.
    """
    if request.body:
        media = body_type(request.headers.get("content-type", ""))
        try:
            if media == protobuf.MEDIA_TYPE:
                options = msgspec.convert(protobuf.decode(request.body, "DeleteOptions"), DeleteOptions)
            else:
                given, _ = codec.parse_body(request.body, media)
                if isinstance(given, dict | None):  # null is as good as absent
                    given = {key: value for key, value in (given or {}).items() if value is not None}
                options = msgspec.convert(given, DeleteOptions)
        except (msgspec.DecodeError, ValueError) as error:
            # upstream takes a bad body for a fault of its own
            if why := _wrong_type(request.body, media):
                raise StatusError(500, "", why) from error
            what = codec.NO_KIND if media == "application/json" else ""
            raise StatusError(500, "", f"{what}{error}") from error
        if options.kind not in ("", "DeleteOptions"):
            why = f'no kind "{options.kind}" is registered for version "{options.api_version or "meta.k8s.io/v1"}"'
            raise StatusError(500, "", why)
    else:
        options = DeleteOptions(
            grace_period_seconds=_number(request, "gracePeriodSeconds"),
            orphan_dependents=flag(request, "orphanDependents"),
            propagation_policy=request.param("propagationPolicy") or None,
            dry_run=[value for key, value in request.query if key == "dryRun"],
        )
    errors: list[f.FieldError] = []
    policy = options.propagation_policy
    if policy is not None and options.orphan_dependents is not None:
        detail = "orphanDependents and deletionPropagation cannot be both set"
        errors.append(f.invalid("propagationPolicy", policy, detail))
    if policy is not None and policy not in ("Foreground", "Background", "Orphan"):
        allowed = ("Foreground", "Background", "Orphan", "nil")
        errors.append(f.not_supported("propagationPolicy", policy, allowed, keep_order=True))
    if any(value != "All" for value in options.dry_run or ()):
        errors.append(f.not_supported("dryRun", options.dry_run, ("All",)))
    _refuse("DeleteOptions", errors)
    return options


def too_large_version(asked: int, current: int) -> StatusError:
    """504: a version this server has not reached."""
    details = {
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }
    return StatusError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {asked}, current: {current}",
        details,
        {"Retry-After": "1"},
    )
