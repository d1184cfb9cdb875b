"""Kernel parameters of this network namespace: read, and written only where they are not as wanted."""

from dataclasses import dataclass
from pathlib import Path

from svcplane.base.errors import KernelError


@dataclass(frozen=True, slots=True)
class Parameter:
    """`path` below `/`.  `at_least`: a larger value is as good.

    `remedy`: what a person does where it cannot be set.
    """

    path: str
    value: int
    at_least: bool = False
    remedy: str = ""

    @property
    def name(self) -> str:
        """As sysctl(8) spells it."""
        head = "proc/sys/"
        return self.path.removeprefix(head).replace("/", ".") if self.path.startswith(head) else f"/{self.path}"


def read(parameter: Parameter, root: Path = Path("/")) -> int | None:
    """The value now; None where this kernel does not have it (a module that is not loaded).  Raises KernelError."""
    try:
        return int((root / parameter.path).read_text().split()[0])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, IndexError) as error:
        raise KernelError(f"cannot read {parameter.name}: {error}") from error


def ensure(parameter: Parameter, root: Path = Path("/")) -> bool | None:
    """Whether it had to be written; None where this kernel does not have it.

    Raises KernelError naming the parameter, both values, the reason and the remedy.
    """
    now = read(parameter, root)
    if now is None:
        return None
    if now == parameter.value or (parameter.at_least and now > parameter.value):
        return False
    try:
        (root / parameter.path).write_text(str(parameter.value))
    except OSError as error:
        remedy = f"; {parameter.remedy}" if parameter.remedy else ""
        text = f"cannot set {parameter.name} from {now} to {parameter.value}: {error.strerror}{remedy}"
        raise KernelError(text) from error
    return True


class Sysctls:
    """The same by a name such as `net/ipv4/ip_forward`, below /proc/sys."""

    def get(self, name: str) -> str | None:
        """None where this kernel does not have it."""
        found = read(Parameter(f"proc/sys/{name}", 0))
        return None if found is None else str(found)

    def set(self, name: str, value: str) -> None:
        """Raises KernelError."""
        ensure(Parameter(f"proc/sys/{name}", int(value)))
