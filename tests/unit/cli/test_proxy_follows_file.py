"""The proxy's configuration file is followed while it runs; a mistake in it changes nothing."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from svcplane.cli import proxy as command
from svcplane.proxy.config.flags import configuration
from svcplane.proxy.config.wire import KubeProxyConfiguration
from svcplane.proxy.settings import Settings

HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"


class Agent:
    """What the file is for: the last settings."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.configz: dict[str, Any] = {}

    def reconfigure(self, settings: Settings) -> None:
        self.settings = settings


class Parameters:
    def adopt(self, config: KubeProxyConfiguration) -> None:
        pass


async def until(done: Callable[[], bool], task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(5):
        while not done():
            if task.done():
                task.result()
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("mode: magic", "mode: magic: must be one of"),
        ("mode: ipvs\nipvs: {tcpTimeout: 999h}", "--ipvs-tcp-timeout 3596400s: must be a duration of at most 744h"),
        ("mode: userspace\nportRange: many", "--proxy-port-range many: must be BEGIN-END"),
    ],
)
async def test_a_mistake_is_told_and_the_next_edit_is_taken_on(
    mistake: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(command, "LOOK_ANYWAY_S", 0.05)
    monkeypatch.setattr(command, "SETTLE_S", 0.01)
    file = tmp_path / "config.yaml"
    file.write_text(HEAD + "mode: ipvs\n")
    flags = command.proxy.make_context("proxy", ["--config", str(file), "--hostname-override", "n1"]).params
    chosen, agent = command.Chosen(flags), Agent()
    following: Any = command._follow_file(chosen, file, chosen.read(), agent, Parameters())  # type: ignore[arg-type]
    task = asyncio.create_task(following)
    try:
        file.write_text(HEAD + mistake)
        await until(lambda: any("the configuration stays as it was" in line for line in caplog.messages), task)
        assert [told in line for line in caplog.messages] == [True]
        assert agent.settings is None
        file.write_text(HEAD + "mode: ipvs\nipvs: {tcpTimeout: 5s}\n")
        await until(lambda: agent.settings is not None, task)
        assert agent.settings is not None
        assert dict(agent.settings.mode_options)["ipvs-tcp-timeout"] == "5s"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


RESTART = "the change needs a restart"


@pytest.mark.parametrize(
    ("mode", "told"),
    [("userspace", [f"oomScoreAdj: {RESTART}", f"portRange: {RESTART}"]), ("ipvs", [f"oomScoreAdj: {RESTART}"])],
)
def test_what_needs_a_restart_is_told(mode: str, told: list[str], caplog: pytest.LogCaptureFixture) -> None:
    flags = command.proxy.make_context("proxy", ["--hostname-override", "n1"]).params
    chosen, agent = command.Chosen(flags), Agent()
    before = configuration({"proxy-mode": mode, "proxy-port-range": "4000-4100"})
    after = configuration({"proxy-mode": "userspace", "proxy-port-range": "5000-5100", "oom-score-adj": "-5"})
    command._take_on(after, before, chosen.settings(after), chosen, agent)
    assert [line for line in caplog.messages if "restart" in line] == told
    assert agent.settings is not None
    assert agent.settings.mode == "userspace"
