"""Tags of container images.

Source: k8s.io/kubernetes/pkg/util/parsers ParseImageName; github.com/distribution/reference ParseNormalizedNamed.
"""

import re

_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_ALGORITHM = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*"
_REFERENCE = re.compile(
    rf"(?:{_HOST}/)(?P<path>{_PART}(?:/{_PART})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?"
    rf"(?:@(?P<algorithm>{_ALGORITHM}):(?P<sum>[0-9a-fA-F]{{32,}}))?"
)
_SUMS = {"sha256": 64, "sha384": 96, "sha512": 128}
_MAX_PATH = 255


def tag(image: str) -> str:
    """Tag of an image; `latest` where neither tag nor digest is given; none where the text is no image's name."""
    first, slash, rest = image.partition("/")
    if not slash or not (set(first) & set(".:") or first == "localhost" or first.lower() != first):
        rest = image if slash else f"library/{image}"
        first = "docker.io"
    found = _REFERENCE.fullmatch(f"{first}/{rest}")
    if _IDENTIFIER.fullmatch(image) or not found or len(found["path"]) > _MAX_PATH:
        return ""
    if found["algorithm"]:
        known = _SUMS.get(found["algorithm"]) == len(found["sum"]) and found["sum"] == found["sum"].lower()
        return found["tag"] or "" if known else ""
    return found["tag"] or "latest"
