"""IP addresses and CIDRs in fields.  Source: k8s.io/apimachinery/pkg/util/validation (KEP-4858, strict)."""

import ipaddress
import re
from collections.abc import Collection

from svcplane.api import fields as f
from svcplane.api.fields import FieldError
from svcplane.api.validation.names import dns1123_label, dns1123_subdomain
from svcplane.base.net import CANONICAL_IPV4, canonical_cidr, canonical_ip

BAD_IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
#: First octets of IPv4 networks of which `special_ip` refuses a part; other addresses need no closer look.
SPECIAL_FIRST_OCTETS = frozenset({"0", "127", "169", "224"})
BAD_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


def _has_leading_zero(text: str) -> bool:
    return ":" not in text and any(re.fullmatch(r"0\d+", part) for part in text.partition("/")[0].split("."))


def strict_ip(path: str, value: str, existing: Collection[str] = ()) -> list[FieldError]:
    """A field that existed before strict validation: what was stored may stay as it is."""
    if value in existing or CANONICAL_IPV4.fullmatch(value):
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
    if _has_leading_zero(value) or (len(length) > 1 and length[0] == "0"):
        return [f.invalid(path, value, "must not have leading 0s in IP or prefix length")]
    parsed = ipaddress.ip_address(address)
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        return [f.invalid(path, value, "must not have an IPv4-mapped IPv6 address")]
    if str(parsed) != str(canonical_cidr(value)).partition("/")[0]:
        return [f.invalid(path, value, "must not have bits set beyond the prefix length")]
    return []


def valid_ip(path: str, value: str) -> list[FieldError]:
    """A field that has always been strict: only the canonical spelling will do."""
    errors = strict_ip(path, value)
    if not errors and value != canonical_ip(value):
        errors.append(f.invalid(path, value, f'must be in canonical form ("{canonical_ip(value)}")'))
    return errors


def valid_cidr(path: str, value: str) -> list[FieldError]:
    """A network in the canonical spelling."""
    errors = strict_cidr(path, value)
    if not errors and value != canonical_cidr(value):
        errors.append(f.invalid(path, value, f'must be in canonical form ("{canonical_cidr(value)}")'))
    return errors


def ip_warnings(path: str, value: str) -> list[str]:
    """What to say of an address that is accepted but badly spelt; nothing of what is none."""
    canonical = canonical_ip(value)
    if canonical is None or canonical == value:
        return []
    if ":" not in value or ":" not in canonical:
        return [
            f'{path}: non-standard IP address "{value}" will be considered invalid in a future Kubernetes release: '
            f'use "{canonical}"'
        ]
    return [f'{path}: IPv6 address "{value}" should be in RFC 5952 canonical format ("{canonical}")']


def cidr_warnings(path: str, value: str) -> list[str]:
    """The same of a network."""
    canonical, address = canonical_cidr(value), canonical_ip(value.partition("/")[0])
    if canonical is None or address is None or canonical == value:
        return []
    found: list[str] = []
    if address != canonical.partition("/")[0]:
        alone = f"{address}/{128 if ':' in address else 32}"
        found.append(
            f'{path}: CIDR value "{value}" is ambiguous in this context (should be "{canonical}" or "{alone}"?)'
        )
    if ":" not in value and _has_leading_zero(value):
        found.append(
            f'{path}: non-standard CIDR value "{value}" will be considered invalid in a future Kubernetes release: '
            f'use "{canonical}"'
        )
    if not found and ":" in value:
        found.append(f'{path}: IPv6 CIDR value "{value}" should be in RFC 5952 canonical format ("{canonical}")')
    return found


def special_ip(path: str, value: str) -> list[FieldError]:
    """Addresses that no endpoint or external address may have."""
    if CANONICAL_IPV4.fullmatch(value) and value.partition(".")[0] not in SPECIAL_FIRST_OCTETS:
        return []
    parsed = ipaddress.ip_address(canonical_ip(value) or value)
    if parsed.is_unspecified:
        return [f.invalid(path, value, f"may not be unspecified ({value})")]
    if parsed.is_loopback:
        return [f.invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)")]
    if parsed.is_link_local:
        return [f.invalid(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")]
    if _is_link_local_multicast(parsed):
        detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
        return [f.invalid(path, value, detail)]
    return []


def _is_link_local_multicast(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """224.0.0.0/24, and IPv6 multicast of scope 2 with any flags."""
    first = ip.packed
    return first[:3] == b"\xe0\0\0" if ip.version == 4 else first[0] == 0xFF and first[1] & 0x0F == 2


def fqdn(path: str, name: str) -> list[FieldError]:
    """A domain name of at least two labels; a dot at its end is fine."""
    if not name:
        return [f.required(path)]
    name = name.removesuffix(".")
    if problems := dns1123_subdomain(name):
        return [f.invalid(path, name, ",".join(problems))]
    if "." not in name:
        return [f.invalid(path, name, "should be a domain with at least two segments separated by dots")]
    for label in name.split("."):
        if problems := dns1123_label(label):
            return [f.invalid(path, label, ",".join(problems))]
    return []
