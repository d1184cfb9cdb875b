"""IP addresses and CIDRs in fields.  Source: k8s.io/apimachinery/pkg/util/validation (KEP-4858, strict)."""

import ipaddress
import re
from collections.abc import Collection

from svcplane.api import fields as f
from svcplane.api.fields import FieldError
from svcplane.base.net import canonical_cidr, canonical_ip

BAD_IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
BAD_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


def _has_leading_zero(text: str) -> bool:
    return ":" not in text and any(re.fullmatch(r"0\d+", part) for part in text.partition("/")[0].split("."))


def strict_ip(path: str, value: str, existing: Collection[str] = ()) -> list[FieldError]:
    """A field that existed before strict validation: what was stored may stay as it is."""
    if value in existing:
        return []
    if canonical_ip(value) is None:
        return [f.invalid(path, value, BAD_IP)]
    if _has_leading_zero(value):
        return [f.invalid(path, value, "must not have leading 0s")]
    parsed = ipaddress.ip_address(value)
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        return [f.invalid(path, value, "must not be an IPv4-mapped IPv6 address")]
    return []


def strict_cidr(path: str, value: str, existing: Collection[str] = ()) -> list[FieldError]:
    if value in existing:
        return []
    if canonical_cidr(value) is None or value != value.strip():
        return [f.invalid(path, value, BAD_CIDR)]
    address, _, length = value.partition("/")
    errors = []
    if _has_leading_zero(value) or (len(length) > 1 and length[0] == "0"):
        errors.append(f.invalid(path, value, "must not have leading 0s in IP or prefix length"))
        return errors
    parsed = ipaddress.ip_address(address)
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        return [f.invalid(path, value, "must not have an IPv4-mapped IPv6 address")]
    if str(parsed) != canonical_cidr(value).partition("/")[0] if canonical_cidr(value) else False:  # type: ignore[union-attr]
        detail = f'must not have bits set beyond the prefix length (should be "{canonical_cidr(value)}")'
        errors.append(f.invalid(path, value, detail))
    return errors


def special_ip(path: str, value: str) -> list[FieldError]:
    """Addresses that no endpoint or external address may have."""
    parsed = ipaddress.ip_address(canonical_ip(value) or value)
    if parsed.is_unspecified:
        return [f.invalid(path, value, f"may not be unspecified ({value})")]
    if parsed.is_loopback:
        return [f.invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)")]
    if parsed.is_link_local:
        return [f.invalid(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")]
    if (parsed.version == 4 and str(parsed).startswith("224.0.0.")) or parsed in ipaddress.ip_network("ff02::/16"):
        detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
        return [f.invalid(path, value, detail)]
    return []
