"""Credentials that a program gives, as kubeconfigs of cloud providers ask for (`users[].user.exec`).

Source: client-go's exec plug-ins, client.authentication.k8s.io; KEP-541.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from svcplane.base.clock import parse_rfc3339
from svcplane.base.errors import ConfigError

VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
MODES = ("Never", "IfAvailable", "Always")
TIMEOUT_S = 60.0


class _Variable(msgspec.Struct, frozen=True):
    name: str
    value: str = ""


class Exec(msgspec.Struct, frozen=True, rename="camel"):
    """As a kubeconfig has it."""

    api_version: str | None = None
    command: str | None = None
    args: list[str] | None = None
    env: list[_Variable] | None = None
    install_hint: str | None = None
    provide_cluster_info: bool | None = None
    interactive_mode: str | None = None


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: str | None = None


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    kind: str = ""
    api_version: str = ""
    status: _Status | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """`cert` and `key` are PEM texts.  `expires_at`: seconds of wall time; None where that is not known."""

    token: str = ""
    cert: str = ""
    key: str = ""
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Plugin:
    """`where` names the kubeconfig and the user, for errors; relative commands are beside `directory`."""

    spec: Exec
    where: str
    directory: Path
    cluster: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raises ConfigError naming the field."""
        if self.spec.api_version not in VERSIONS:
            raise ConfigError(f"{self.where}: apiVersion: {self.spec.api_version!r}: must be {' or '.join(VERSIONS)}")
        if not self.spec.command:
            raise ConfigError(f"{self.where}: command: is empty")
        mode = self.spec.interactive_mode
        if mode not in MODES and (mode is not None or self.spec.api_version == VERSIONS[0]):
            raise ConfigError(f"{self.where}: interactiveMode: {mode!r}: must be one of {', '.join(MODES)}")

    def ask(self) -> Credentials:
        """Run the program, a minute at most.  Raises ConfigError saying what it said."""
        interactive = self._interactive()
        spec: dict[str, Any] = {"interactive": interactive}
        if self.spec.provide_cluster_info:
            spec["cluster"] = dict(self.cluster)
        info = {"kind": "ExecCredential", "apiVersion": self.spec.api_version, "spec": spec}
        environment = {variable.name: variable.value for variable in self.spec.env or ()}
        try:
            done = subprocess.run(
                [self._command(), *(self.spec.args or ())],
                env={**os.environ, **environment, "KUBERNETES_EXEC_INFO": json.dumps(info)},
                stdin=None if interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if interactive else subprocess.PIPE,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ConfigError(f"{self.where}: {self.spec.command} did not end within {TIMEOUT_S:g} s") from error
        except OSError as error:
            raise ConfigError(f"{self.where}: {self.spec.command}: {error.strerror}{self._hint()}") from error
        if done.returncode:
            said = (done.stderr or b"").decode(errors="replace").strip().splitlines()
            why = said[-1] if said else "no message"
            raise ConfigError(f"{self.where}: {self.spec.command} ended with status {done.returncode}: {why}")
        return self._read(done.stdout)

    def _interactive(self) -> bool:
        terminal = sys.stdin is not None and sys.stdin.isatty()
        if self.spec.interactive_mode == "Always" and not terminal:
            raise ConfigError(f"{self.where}: {self.spec.command} needs a terminal (interactiveMode Always)")
        return terminal and self.spec.interactive_mode != "Never"

    def _command(self) -> str:
        command = self.spec.command or ""
        if "/" in command:
            return str(self.directory / command)
        found = shutil.which(command)
        if found is None:
            raise ConfigError(f"{self.where}: the program `{command}` is missing{self._hint()}")
        return found

    def _hint(self) -> str:
        return f"; {' '.join(self.spec.install_hint.split())}" if self.spec.install_hint else ""

    def _read(self, output: bytes) -> Credentials:
        where = f"{self.where}: {self.spec.command}"
        try:
            answer = msgspec.json.decode(output, type=_Answer)
        except msgspec.DecodeError as error:  # ValidationError is one
            raise ConfigError(f"{where} gave no ExecCredential: {error}") from error
        if (answer.kind, answer.api_version) != ("ExecCredential", self.spec.api_version):
            raise ConfigError(f"{where} gave {answer.api_version} {answer.kind}, not {self.spec.api_version}")
        status = answer.status or _Status()
        cert, key = status.client_certificate_data or "", status.client_key_data or ""
        if bool(cert) != bool(key) or not (status.token or cert):
            raise ConfigError(f"{where} gave neither a token nor a client certificate with its key")
        expires = parse_rfc3339(status.expiration_timestamp) if status.expiration_timestamp else None
        return Credentials(status.token or "", cert, key, expires)
