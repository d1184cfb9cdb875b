"""The command line and the configuration types as pages."""

import re
import types
import typing

import click
import msgspec

from svcplane.cli.main import cli
from svcplane.proxy.config.defaults import complete
from svcplane.proxy.config.flags import FLAGS
from svcplane.proxy.config.wire import Duration, KubeProxyConfiguration, encode_hook
from svcplane.proxy.planes import PLANES

WIDTH = 100


def command_line() -> str:
    """docs/reference/cli.md."""
    lines = [
        "# The command line",
        "",
        "What `--help` says, of every verb. Exit status: 0 all is well, 1 a problem was found or the work failed,"
        " 2 wrong use, 3 the host lacks something, 130 Ctrl-C.",
        "",
        "Shell completion: `svcplane completion bash`, `zsh` or `fish` prints it.",
    ]
    root = click.Context(cli, info_name="svcplane", max_content_width=WIDTH, terminal_width=WIDTH)
    for path, command, context in _commands(cli, root):
        lines += ["", f"{'#' * min(4, 2 + len(path) - 1)} svcplane {' '.join(path)}", "", "```text"]
        lines += [line.rstrip() for line in command.get_help(context).splitlines()]
        lines.append("```")
    return "\n".join(lines) + "\n"


def _commands(
    group: click.Group, context: click.Context, path: tuple[str, ...] = ()
) -> typing.Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if command.hidden:
            continue
        command._help_option = None  # click keeps that of the first context that asked, whichever that was
        inner = click.Context(command, parent=context, info_name=name, max_content_width=WIDTH, terminal_width=WIDTH)
        yield (*path, name), command, inner
        if isinstance(command, click.Group):
            yield from _commands(command, inner, (*path, name))


def configuration() -> str:
    """docs/reference/configuration.md."""
    flags = _flags_by_field()
    filled = msgspec.to_builtins(complete(KubeProxyConfiguration()), enc_hook=encode_hook)
    lines = [
        "# The proxy's configuration",
        "",
        "`svcplane proxy --config FILE` takes a KubeProxyConfiguration (`kubeproxy.config.k8s.io/v1alpha1`) in YAML or"
        f" JSON. Modes: {', '.join(PLANES)}. A default that is empty means that nothing is set, or that it is found"
        " out.",
        "",
        "| field | type | default | flag |",
        "|---|---|---|---|",
    ]
    for path, kind in _fields(KubeProxyConfiguration):
        lines.append(f"| `{path}` | {kind} | {_default(filled, path)} | {flags.get(path, '')} |")
    taken = sorted(name for name, flag in FLAGS.items() if not flag.fields)
    lines += [
        "",
        "Taken for the sake of kube-proxy's manifests, without a meaning here: "
        + ", ".join(f"`--{name}`" for name in taken)
        + ".",
    ]
    return "\n".join(lines) + "\n"


def _flags_by_field() -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for name, flag in FLAGS.items():
        for field in flag.fields:
            found.setdefault(field, []).append(f"`--{name}`")
    return {field: ", ".join(names) for field, names in found.items()}


def _fields(struct: type[msgspec.Struct], head: str = "") -> typing.Iterator[tuple[str, str]]:
    hints = typing.get_type_hints(struct)
    for field in msgspec.structs.fields(struct):
        kind = hints[field.name]
        path = f"{head}{field.encode_name}"
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield from _fields(kind, f"{path}.")
        else:
            yield path, _kind(kind)


NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Duration: "duration (`30s`)"}


def _kind(kind: object) -> str:
    if kind in NAMES:
        return NAMES[kind]  # type: ignore[index]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return _kind(next(one for one in arguments if one is not type(None)))
    if origin is list:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return "map"
    return "any"


def _default(tree: object, path: str) -> str:
    for part in path.split("."):
        assert isinstance(tree, dict)
        tree = tree.get(part)
    if tree is None or tree == "" or tree == [] or tree == {}:
        return ""
    text = re.sub(r"^(True|False)$", lambda match: match[1].lower(), str(tree))
    return f"`{text}`"
