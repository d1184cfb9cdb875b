"""`svcplane completion bash|zsh|fish`: the script that teaches a shell the verbs, options, kinds and names."""

import click
from click.shell_completion import get_completion_class

from svcplane.base.errors import ConfigError

VARIABLE = "_SVCPLANE_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script that completes verbs, options, kinds of objects and names of Services.

    \b
    bash:  source <(svcplane completion bash)        in ~/.bashrc
    zsh:   source <(svcplane completion zsh)         in ~/.zshrc, after compinit
    fish:  svcplane completion fish > ~/.config/fish/completions/svcplane.fish
    """
    from svcplane.cli.main import cli

    found = get_completion_class(shell)
    if found is None:
        raise ConfigError(f"{shell}: must be one of {', '.join(SHELLS)}")
    made = found(cli, {}, "svcplane", VARIABLE)
    # click's own `source` asks the installed shell for its version: the script may be made for another machine
    click.echo(made.source_template % made.source_vars())
