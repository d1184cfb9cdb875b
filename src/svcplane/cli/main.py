"""The `svcplane` command: a table of verbs, each a file, loaded only when it is called.

Owns what all verbs share: one clear line for an error (never a traceback), exit statuses, logging set-up.
A verb's module has one click command or group; it is the only kind of place where components are put together.
"""

import importlib
import importlib.util
import logging
import os
import sys

import click

from svcplane import __version__
from svcplane.base.errors import SvcplaneError

# verb -> (module, attribute, help line).  The help line stands here so that `svcplane --help` imports nothing.
VERBS: dict[str, tuple[str, str, str]] = {
    "lab": ("svcplane.cli.lab", "lab", "Build and use clusters of network namespaces on this machine."),
    "up": ("svcplane.cli.up", "up", "Run everything on this host: API server, controllers, proxy, node agent."),
    "apiserver": ("svcplane.cli.apiserver", "apiserver", "Run the Kubernetes-compatible API server."),
    "controllers": ("svcplane.cli.controllers", "controllers", "Run the Endpoints and EndpointSlice controllers."),
    "proxy": ("svcplane.cli.proxy", "proxy", "Run the service proxy (a drop-in kube-proxy)."),
    "node": ("svcplane.cli.node", "node", "Run the node agent: Pods as processes."),
    "store": ("svcplane.cli.store", "store", "Back up, restore and check an API server's data."),
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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, VERBS[name][2]) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="svcplane")
def cli() -> None:
    """The Kubernetes Service system for any Linux host."""


def configure_logging(verbosity: int) -> None:
    """Logs go to standard error, one line an effect; `verbosity` as kube components' -v (4 and up: debug)."""
    level = logging.DEBUG if verbosity >= 4 else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname).1s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def main() -> None:
    """Entry point: translate errors into one line and an exit status."""
    try:
        status = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SvcplaneError as error:
        click.echo(f"svcplane: {error}", err=True)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)
