"""The `svcplane` command: a table of verbs, each a file, loaded only when it is called.

Owns what all verbs share: one clear line for an error (never a traceback), exit statuses, logging set-up.
A verb's module has one click command or group; it is the only kind of place where components are put together.
"""

import errno
import importlib
import importlib.util
import logging
import os
import sys

import click
from click.shell_completion import CompletionItem

from svcplane import __version__
from svcplane.base.errors import EnvironmentProblem, SvcplaneError, reason_of

# What may run out anywhere on a host, and is no bug.
HOST_IS_OUT_OF = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)

FAULT = 70  # EX_SOFTWARE of sysexits.h
# verb -> (module, attribute, help line).  The help line stands here so that `svcplane --help` imports nothing.
VERBS: dict[str, tuple[str, str, str]] = {
    "lab": ("svcplane.cli.lab", "lab", "Build and use clusters of network namespaces on this machine."),
    "up": ("svcplane.cli.up", "up", "Run everything on this host: API server, controllers, proxy, node agent."),
    "apiserver": ("svcplane.cli.apiserver", "apiserver", "Run the Kubernetes-compatible API server."),
    "controllers": ("svcplane.cli.controllers", "controllers", "Run the Endpoints and EndpointSlice controllers."),
    "proxy": ("svcplane.cli.proxy", "proxy", "Run the service proxy (a drop-in kube-proxy)."),
    "node": ("svcplane.cli.node", "node", "Run the node agent: Pods as processes."),
    "get": ("svcplane.cli.get", "get", "List objects: Services, Pods, EndpointSlices, ..."),
    "apply": ("svcplane.cli.apply", "apply", "Apply manifests: files, directories, or standard input."),
    "delete": ("svcplane.cli.delete", "delete", "Delete objects, and wait until they are gone."),
    "wait": ("svcplane.cli.wait", "wait", "Wait until every node has programmed a Service; or for a condition."),
    "logs": ("svcplane.cli.logs", "logs", "Show what a Pod's containers wrote."),
    "explain": ("svcplane.cli.explain", "explain", "Say who is behind a Service, and why it does not work."),
    "trace": ("svcplane.cli.trace", "trace", "Say what becomes of a connection on this node, rule by rule."),
    "doctor": ("svcplane.cli.doctor", "doctor", "Find what is wrong with this node, with remedies."),
    "plan": ("svcplane.cli.plan", "plan", "Say what applying a file would change, or where the kernel drifted."),
    "affinity": ("svcplane.cli.affinity", "affinity", "Which client sticks to which Pod; part them."),
    "top": ("svcplane.cli.top", "top", "Show connections and bytes of Services and endpoints, live."),
    "history": ("svcplane.cli.history", "history", "Say what the proxy of this node did, when and why."),
    "console": ("svcplane.cli.console", "console", "Serve the web console for a cluster by its kubeconfig."),
    "store": ("svcplane.cli.store", "store", "Back up, restore and check an API server's data."),
    "certificate": ("svcplane.cli.certificate", "certificate", "Issue a node's serving certificate."),
    "completion": ("svcplane.cli.completion", "completion", "Print the completion script of a shell."),
}


class LazyGroup(click.Group):
    """Verbs are imported when used: `svcplane proxy` does not pay for the API server's imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, (module, _, _) in VERBS.items() if importlib.util.find_spec(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module, attribute, _ = VERBS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs by their names alone: none is imported for it."""
        if incomplete[:1] == "-":
            return super().shell_complete(ctx, incomplete)
        names = (name for name in self.list_commands(ctx) if name.startswith(incomplete))
        return [CompletionItem(name, help=VERBS[name][2]) for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, VERBS[name][2]) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="svcplane")
def cli() -> None:
    """The Kubernetes Service system for any Linux host.

    A connection to a Service fails?  Begin with `svcplane explain svc/NAME`.
    """


def configure_logging(verbosity: int) -> None:
    """Logs go to standard error, one line an effect; `verbosity` as kube components' -v (4 and up: debug)."""
    level = logging.DEBUG if verbosity >= 4 else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname).1s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def main() -> None:
    """Entry point: translate errors into one line and an exit status."""
    try:
        status = cli.main(prog_name="svcplane", standalone_mode=False)
    except BaseException as error:
        if os.environ.get("SVCPLANE_TRACEBACK"):
            raise
        status = told(error)
    sys.exit(status if isinstance(status, int) else 0)


def told(error: BaseException) -> int | str | None:
    """Say an error in one line; the exit status.  A closed standard output says nothing, as other programs do."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case SystemExit():
            return error.code
        case click.exceptions.Abort() | KeyboardInterrupt():
            return 130
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return error.exit_code
        case click.ClickException():
            more = f"; see {error.ctx.command_path} --help" if isinstance(error, click.UsageError) and error.ctx else ""
            text, status = error.format_message().removesuffix(".") + more, error.exit_code
        case SvcplaneError():
            text, status = str(error), error.exit_status
        case BrokenPipeError():
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes once more when it ends
            return 1
        case OSError() if error.errno in HOST_IS_OUT_OF:
            about = f"{error.filename}: " if error.filename else ""
            text, status = f"{about}{reason_of(error)}", EnvironmentProblem.exit_status
        case _:
            where = "SVCPLANE_TRACEBACK=1 shows where"
            text, status = f"a fault of svcplane itself: {type(error).__name__}: {error}; {where}", FAULT
    click.echo(f"svcplane: {' '.join(text.split())}", err=True)
    return status
