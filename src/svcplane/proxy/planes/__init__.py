"""The planes by mode.  A plane is loaded when its mode is asked for.

A factory takes the configuration of one family and gives a Plane (`proxy.plane`).
"""

import importlib
from collections.abc import Callable

from svcplane.base.errors import ConfigError
from svcplane.proxy.model import NodeConfig
from svcplane.proxy.plane import Plane

PLANES: dict[str, str] = {
    "nftables": "svcplane.proxy.planes.nftables.make",
    "iptables": "svcplane.proxy.planes.iptables.make",
    "ipvs": "svcplane.proxy.planes.ipvs.make",
    "userspace": "svcplane.proxy.planes.userspace.make",
}


def make_plane(mode: str, config: NodeConfig) -> Plane:
    """Raises ConfigError for a mode that does not exist."""
    if mode not in PLANES:
        raise ConfigError(f"--proxy-mode {mode}: must be one of {', '.join(PLANES)}")
    factory: Callable[[NodeConfig], Plane] = importlib.import_module(PLANES[mode]).make
    return factory(config)
