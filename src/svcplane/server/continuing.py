"""Continue tokens of lists, and how Go words what is wrong with them.  Pure.

Source: k8s.io/apiserver/pkg/storage/continue.go.
"""

import base64
import json

import msgspec

from svcplane.api import go_json, go_syntax
from svcplane.api.status import StatusError, bad_request

VERSION = "meta.k8s.io/v1"
_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


class Continue(msgspec.Struct):
    """The state shown and the last key given."""

    rv: int = 0
    start: str = ""
    v: str = ""

    def encode(self) -> str:
        whole = Continue(self.rv, self.start, VERSION)
        return base64.urlsafe_b64encode(msgspec.json.encode(whole)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "Continue":
        """Raises StatusError 400."""
        try:
            token = msgspec.json.decode(raw := go_json.repaired(_decoded(text)), type=cls)
        except msgspec.DecodeError as error:
            raise _bad(f": {_json_fault(raw, str(error))}") from error
        if token.v != VERSION:
            raise _bad(f": server does not recognize this encoded version {token.v}")
        if not token.rv:
            raise _bad(f": incorrect encoded start resourceVersion (version {VERSION})")
        if not token.start:
            raise _bad(f": encoded start key empty (version {VERSION})")
        return token


def _bad(why: str) -> StatusError:
    return bad_request(f"invalid continue token: continue key is not valid{why}")


def _decoded(text: str) -> bytes:
    """URL-safe base64 without padding; line ends within do not count.  Raises StatusError."""
    text = text.encode().decode("latin-1")  # Go counts bytes
    wrong = next((at for at, char in enumerate(text) if char not in _ALPHABET and char not in "\r\n"), None)
    kept = [at for at, char in enumerate(text) if char not in "\r\n"]
    if wrong is None and len(kept) % 4 == 1:
        wrong = kept[-1]
    if wrong is not None:
        raise _bad(f": illegal base64 data at input byte {wrong}")
    whole = "".join(text[at] for at in kept)
    return base64.urlsafe_b64decode(whole + "=" * (-len(whole) % 4))


def _json_fault(raw: bytes, otherwise: str) -> str:
    """What Go says of bytes that are no token."""
    if fault := go_syntax.json_fault(raw):
        return fault
    value = json.loads(raw)
    if isinstance(value, dict):
        return otherwise
    return f"json: cannot unmarshal {go_json.type_name(value)} into Go value of type storage.continueToken"
