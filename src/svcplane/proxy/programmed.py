"""Which resourceVersions a node's proxy has programmed, as its Lease tells.  Pure.

A Lease `svcplane-proxy-NODE` is renewed while the proxy runs, so that one that stopped is seen by anybody with a
kubeconfig; its annotation holds the versions.  A Service is programmed on a node when both versions have reached
those of the Service and of its slices.  Versions of one resource can be compared as numbers (KEP-5504).
"""

from dataclasses import dataclass

import msgspec

LEASE_NAMESPACE = "kube-node-lease"
LEASE_PREFIX = "svcplane-proxy-"
ANNOTATION = "svcplane.dev/programmed"
LABEL = "svcplane.dev/component"
RENEW_S, DURATION_S = 10.0, 40


@dataclass(frozen=True, slots=True)
class Programmed:
    """`services`, `slices`: resourceVersions; empty where nothing is known yet."""

    services: str = ""
    slices: str = ""
    mode: str = ""

    def covers(self, service_version: str, slice_versions: tuple[str, ...]) -> bool:
        """Whether these versions are programmed.  What is no number is never covered."""
        return _reached(self.services, service_version) and all(_reached(self.slices, v) for v in slice_versions)


def _reached(have: str, wanted: str) -> bool:
    return have.isdigit() and wanted.isdigit() and int(have) >= int(wanted)


def to_text(value: Programmed) -> str:
    return msgspec.json.encode(value).decode()


def from_text(text: str) -> Programmed | None:
    """None for what is no such text."""
    try:
        return msgspec.json.decode(text, type=Programmed)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
