"""What the agent knows of one Pod, as values.  Pure.  Times are seconds since the epoch (they outlive the agent)."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from svcplane.node.users import User


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container's main process ended.  `code` is 128 + signal where a signal ended it."""

    code: int
    signal: int
    finished: float
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One start of a container.  `id` is unique on the node; `attempt` counts from 0."""

    id: str
    container: str
    attempt: int
    started: float
    exit: Exit | None = None

    @property
    def running(self) -> bool:
        return self.exit is None


@dataclass(frozen=True, slots=True)
class Stopping:
    """A run that was told to end: since when, and how long it may take."""

    since: float
    grace_s: float
    killed: bool = False


@dataclass(frozen=True, slots=True)
class Backoff:
    """Crash back-off of one container: a start within `delay_s` of the last exit has to wait."""

    delay_s: float
    updated: float


@dataclass(frozen=True, slots=True)
class Health:
    """What probes say of a running container.  Without a startup probe, `started` as soon as it runs."""

    started: bool = False
    ready: bool = False
    failed: str = ""  # why it must be restarted: text of the liveness or startup failure
    grace_s: int | None = None  # the failed probe's own terminationGracePeriodSeconds


@dataclass(frozen=True, slots=True)
class Observed:
    """All the agent knows of a Pod on this node."""

    sandbox: bool = False
    ips: tuple[str, ...] = ()
    runs: Mapping[str, Run] = field(default_factory=dict)  # container -> newest
    previous: Mapping[str, Run] = field(default_factory=dict)  # container -> the one before
    health: Mapping[str, Health] = field(default_factory=dict)  # run id ->
    stopping: Mapping[str, Stopping] = field(default_factory=dict)  # run id ->
    backoff: Mapping[str, Backoff] = field(default_factory=dict)  # container ->
    first_attempt: Mapping[str, int] = field(default_factory=dict)  # container -> after earlier sandboxes
    problem: str = ""  # why the sandbox could not be made
    hooked: Set[str] = frozenset()  # ids of runs whose postStart hook goes on
    user: User = User(0, 0, (0,))  # the agent's: that of containers which ask for none

    def health_of(self, run: Run) -> Health:
        return self.health.get(run.id, Health())


@dataclass(frozen=True, slots=True)
class Deletion:
    """The Pod is to go: by when its processes must have ended."""

    grace_s: float


# -- actions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateSandbox:
    reason: str


@dataclass(frozen=True, slots=True)
class RemoveSandbox:
    """Remove processes and network; `forget` also the logs and records."""

    reason: str
    forget: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    container: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """preStop, then SIGTERM."""

    run: Run
    grace_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Kill:
    run: Run
    reason: str


@dataclass(frozen=True, slots=True)
class DeleteObject:
    reason: str


Action = CreateSandbox | RemoveSandbox | Start | Terminate | Kill | DeleteObject


@dataclass(frozen=True, slots=True)
class Plan:
    """`wake_at`: when to plan again even if nothing happens.  `backoff`: container -> wait that is in force."""

    actions: tuple[Action, ...]
    wake_at: float | None = None
    waiting: Mapping[str, float] = field(default_factory=dict)  # container in crash back-off -> delay
    charged: Mapping[str, Backoff] = field(default_factory=dict)  # back-off records to keep
