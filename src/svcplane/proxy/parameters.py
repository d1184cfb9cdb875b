"""The kernel parameters that the configuration wants: set, and set again where somebody changes them."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from svcplane.base.errors import KernelError
from svcplane.kernel import sysctl
from svcplane.proxy.config.wire import KubeProxyConfiguration
from svcplane.proxy.sysctls import expected, wanted

log = logging.getLogger(__name__)
LOOK_EVERY_S = 3.0


class Parameters:
    """Of a completed configuration, which may be given anew (`adopt`), and those in `also`.

    `root`: where /proc and /sys are.
    """

    def __init__(
        self, config: KubeProxyConfiguration, root: Path = Path("/"), also: Sequence[sysctl.Parameter] = ()
    ) -> None:
        self._config, self._root, self._also = config, root, also
        self._held: set[sysctl.Parameter] = set()  # have been as wanted
        self._told: set[str] = set()

    def adopt(self, config: KubeProxyConfiguration) -> None:
        """Want what another configuration wants, and set it."""
        self._config = config
        self.set()

    def set(self) -> list[sysctl.Parameter]:
        """Set what is not as wanted, and tell of it; gives what this kernel does not have (yet)."""
        missing = self.look()
        for parameter in expected(self._config):
            with contextlib.suppress(KernelError):
                if sysctl.read(parameter, self._root) == 0:
                    self._tell(f"{parameter.name} is 0: {parameter.remedy}")
        return missing

    def look(self) -> list[sysctl.Parameter]:
        """The same, without what is not ours to set."""
        missing = []
        for parameter in (*wanted(self._config, os.cpu_count() or 1), *self._also):
            try:
                written = sysctl.ensure(parameter, self._root)
            except KernelError as error:
                self._tell(str(error))
                continue
            if written is None:
                missing.append(parameter)
                continue
            if written and parameter in self._held:
                log.warning("somebody changed %s: set to %d again", parameter.name, parameter.value)
            elif written:
                log.info("set %s to %d", parameter.name, parameter.value)
            self._held.add(parameter)
        return missing

    def _tell(self, problem: str) -> None:
        if problem not in self._told:
            self._told.add(problem)
            log.warning("%s", problem)

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()
