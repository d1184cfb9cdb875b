"""The planes by mode.  A plane is loaded when its mode is asked for.

A factory takes the configuration of one family and gives a Plane (`proxy.plane`).
"""

import importlib
import os
from collections.abc import Callable

from svcplane.base.errors import ConfigError
from svcplane.kernel.sysctl import Parameter
from svcplane.proxy.model import NodeConfig
from svcplane.proxy.plane import Plane

PLANES: dict[str, str] = {
    "nftables": "svcplane.proxy.planes.nftables.make",
    "iptables": "svcplane.proxy.planes.iptables.make",
    "ipvs": "svcplane.proxy.planes.ipvs.make",
    "userspace": "svcplane.proxy.planes.userspace.make",
}
#: What reads the options of a mode that has some, and refuses those that it does not take.
_OPTIONS: dict[str, tuple[str, str]] = {
    "ipvs": ("svcplane.proxy.planes.ipvs.policy", "options"),
    "userspace": ("svcplane.proxy.planes.userspace.ports", "relay_ports"),
}
#: Modes that set kernel parameters of their own, what tells which, and the module that has them.
_PARAMETERS: dict[str, tuple[str, str, str]] = {"ipvs": ("svcplane.proxy.planes.ipvs.system", "ahead", "ip_vs")}


def parameters_ahead(mode: str, options: tuple[tuple[str, str], ...]) -> tuple[list[Parameter], tuple[str, ...]]:
    """Kernel parameters that a plane sets itself, which takes more privileges than its rules do; and the modules of
    the kernel that have them.  Raises ConfigError naming the flag."""
    if mode not in _PARAMETERS:
        return [], ()
    module, name, kernel_module = _PARAMETERS[mode]
    return getattr(importlib.import_module(module), name)(options, os.uname().release), (kernel_module,)


def check_options(mode: str, options: tuple[tuple[str, str], ...]) -> None:
    """`options` as `NodeConfig.mode_options`.  Raises ConfigError naming the flag."""
    if mode in _OPTIONS:
        module, name = _OPTIONS[mode]
        getattr(importlib.import_module(module), name)(options)


def make_plane(mode: str, config: NodeConfig) -> Plane:
    """Raises ConfigError for a mode that does not exist."""
    if mode not in PLANES:
        raise ConfigError(f"--proxy-mode {mode}: must be one of {', '.join(PLANES)}")
    factory: Callable[[NodeConfig], Plane] = importlib.import_module(PLANES[mode]).make
    return factory(config)
