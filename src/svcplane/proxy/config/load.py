"""KubeProxyConfiguration as text.  Pure; unknown and repeated fields are errors."""

from typing import Any

import msgspec
import yaml

from svcplane.base.errors import ConfigError
from svcplane.base.yamltext import documents
from svcplane.proxy.config.wire import API_VERSION, KIND, KubeProxyConfiguration, decode_hook, encode_hook


def parse(text: str) -> KubeProxyConfiguration:
    """A configuration file, not yet completed.  Raises ConfigError naming the field."""
    found = documents(text)
    if len(found) != 1 or not isinstance(found[0], dict):
        raise ConfigError(f"must be one {KIND} document")
    tree = found[0]
    if (tree.get("apiVersion"), tree.get("kind")) != (API_VERSION, KIND):
        raise ConfigError(f"apiVersion and kind: must be {API_VERSION} and {KIND}")
    return decode(tree)


def decode(tree: dict[str, Any]) -> KubeProxyConfiguration:
    """Raises ConfigError naming the field."""
    try:
        return msgspec.convert(_without_nulls(tree), KubeProxyConfiguration, dec_hook=decode_hook)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        place = place.strip("`").removeprefix(".")
        if message.startswith("Object contains unknown field "):
            name = message.split("`")[1]
            raise ConfigError(f"unknown field {f'{place}.{name}' if place else name}") from error
        raise ConfigError(f"{place}: {message[:1].lower()}{message[1:]}".replace("`", "")) from error


def _without_nulls(value: Any) -> Any:
    """null is as good as nothing, as Go reads it."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value


def tree_of(config: KubeProxyConfiguration) -> dict[str, Any]:
    """Every field, for people and for /configz; one that Kubernetes has no more only where it says something."""
    tree: dict[str, Any] = msgspec.to_builtins(config, enc_hook=encode_hook)
    if not config.udp_idle_timeout.seconds:
        del tree["udpIdleTimeout"]
    return tree


def dump(config: KubeProxyConfiguration) -> str:
    """A file that `parse` reads."""
    return yaml.safe_dump(tree_of(config), sort_keys=True, default_flow_style=False)
