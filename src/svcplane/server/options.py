"""Options of requests, read and checked.  Pure.  Source: metav1 CreateOptions, ListOptions, DeleteOptions, ..."""

from dataclasses import dataclass

import msgspec

from svcplane.api import fields as f
from svcplane.api import protobuf
from svcplane.api.http import Request
from svcplane.api.status import StatusError, bad_request, invalid

MEDIA = "meta.k8s.io"


def _refuse(kind: str, errors: list[f.FieldError]) -> None:
    if errors:
        raise invalid(kind, "", errors, MEDIA)


def _flag(text: str) -> bool:
    return text.lower() in ("true", "1", "t", "")


@dataclass(frozen=True, slots=True)
class WriteOptions:
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
    is_apply = request.headers.get("content-type", "").startswith("application/apply-patch")
    if kind == "PatchOptions" and is_apply and not manager:
        errors.append(f.required("fieldManager", "is required for apply patch"))
    if kind == "PatchOptions" and not is_apply and request.param("force"):
        errors.append(f.forbidden("force", "may not be specified for non-apply patch"))
    _refuse(kind, errors)
    force = bool(request.param("force")) and _flag(request.param("force"))
    return WriteOptions(bool(dry_run), validation, manager_name(request), force)


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
    limit = request.param("limit") or "0"
    if not limit.lstrip("-").isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{limit}": invalid syntax')
    timeout = request.param("timeoutSeconds")
    if timeout and not timeout.isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{timeout}": invalid syntax')
    initial = request.param("sendInitialEvents")
    options = ListOptions(
        request.param("labelSelector"),
        request.param("fieldSelector"),
        max(0, int(limit)),
        request.param("continue"),
        request.param("resourceVersion"),
        request.param("resourceVersionMatch"),
        float(timeout) if timeout else None,
        bool(request.param("allowWatchBookmarks")) and _flag(request.param("allowWatchBookmarks")),
        _flag(initial) if initial else None,
    )
    _refuse("ListOptions", _list_faults(options, watch))
    version = options.resource_version
    if version and not version.isdigit():
        path = "resourceVersion"
        raise (
            bad_request(f'Invalid value: "{version}": strconv.ParseUint: parsing "{version}": invalid syntax')
            if watch
            else invalid("", "", [f.invalid(path, version, f'strconv.ParseUint: parsing "{version}": invalid syntax')])
        )
    return options


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
            errors.append(f.not_supported("resourceVersionMatch", match, ("Exact", "NotOlderThan", "")))
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
    return errors


class Preconditions(msgspec.Struct, rename="camel"):
    uid: str | None = None
    resource_version: str | None = None


class DeleteOptions(msgspec.Struct, rename="camel"):
    """Of the body, else of the query."""

    grace_period_seconds: int | None = None
    preconditions: Preconditions | None = None
    orphan_dependents: bool | None = None
    propagation_policy: str | None = None
    dry_run: list[str] | None = None

    @property
    def is_dry_run(self) -> bool:
        return bool(self.dry_run)


def delete_options(request: Request) -> DeleteOptions:
    if request.body:
        try:
            if request.headers.get("content-type", "").partition(";")[0].strip() == protobuf.MEDIA_TYPE:
                options = msgspec.convert(protobuf.decode(request.body, "DeleteOptions"), DeleteOptions)
            else:
                options = msgspec.json.decode(request.body, type=DeleteOptions)
        except (msgspec.DecodeError, ValueError) as error:
            raise bad_request(f"converting to DeleteOptions: {error}") from error
    else:
        grace = request.param("gracePeriodSeconds")
        options = DeleteOptions(
            grace_period_seconds=int(grace) if grace.isdigit() else None,
            propagation_policy=request.param("propagationPolicy") or None,
        )
    dry_run = [value for key, value in request.query if key == "dryRun"]
    if dry_run:
        options.dry_run = dry_run
    errors: list[f.FieldError] = []
    if any(value != "All" for value in options.dry_run or ()):
        errors.append(f.not_supported("dryRun", options.dry_run, ("All",)))
    policy = options.propagation_policy
    if policy is not None and policy not in ("Foreground", "Background", "Orphan"):
        allowed = ("Foreground", "Background", "Orphan", "nil")
        errors.append(f.not_supported("propagationPolicy", policy, allowed))
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
