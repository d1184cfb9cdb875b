"""A packet's way through the hooks, one after the other as in the kernel.  Pure.

Prerouting (or output, for what this host sends), then input or forward as the address is this host's or not, then
postrouting for what leaves or goes on.
"""

import ipaddress
from dataclasses import replace

from svcplane.kernel.nft import objects as o
from svcplane.kernel.nft.interpreter import End, Flow, Interpreter


def walk(content: o.TableContent, local: frozenset[bytes], flow: Flow, *, own: bool) -> list[End]:
    """Every end the packet may find in one table.  `local`: this host's addresses, packed; `own`: it sends it."""
    interpreter = Interpreter(content, local)
    done: list[End] = []
    for end in interpreter.run(o.Hook.OUTPUT if own else o.Hook.PREROUTING, flow):
        if not end.goes_on:
            done.append(end)
            continue
        here = end.flow.daddr in local or ipaddress.ip_address(end.flow.daddr).is_loopback
        done += _through(_after(own=own, here=here), end, interpreter)
    return done


def _after(*, own: bool, here: bool) -> tuple[o.Hook, ...]:
    if own:
        return (o.Hook.POSTROUTING, o.Hook.INPUT) if here else (o.Hook.POSTROUTING,)
    return (o.Hook.INPUT,) if here else (o.Hook.FORWARD, o.Hook.POSTROUTING)


def _through(hooks: tuple[o.Hook, ...], end: End, interpreter: Interpreter) -> list[End]:
    ends = [end]
    for hook in hooks:
        following: list[End] = []
        for current in ends:
            if not current.goes_on:
                following.append(current)
                continue
            for after in interpreter.run(hook, current.flow):
                following.append(replace(after, way=(*current.way, *after.way)))
        ends = following
    return ends
