"""The commands that a page shows.  Pure.

Indented blocks, and fences without a language or of `sh`, are commands, one a line (a trailing backslash goes on).
Fences of other languages are not; one of YAML whose first line is `# /PATH` is a file that a reader is told to write.
"""

import re
from dataclasses import dataclass

FENCE = re.compile(r"^```(\w*)\s*$")
REMARK = re.compile(r"\s{2,}#.*$")


@dataclass(frozen=True, slots=True)
class Command:
    """`text` without its remark; `line` of the page, from 1."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class File:
    """What a reader writes before the commands after it."""

    line: int
    path: str
    content: str


def steps(page: str) -> list[Command | File]:
    """In the page's order."""
    found: list[Command | File] = []
    lines = page.splitlines()
    number = 0
    before_blank = True
    while number < len(lines):
        line = lines[number]
        fence = FENCE.match(line)
        if fence:
            end = next(at for at in range(number + 1, len(lines)) if lines[at].startswith("```"))
            inside = lines[number + 1 : end]
            found += _fenced(fence[1], number + 2, inside)
            number = end + 1
            before_blank = False
            continue
        if before_blank and line.startswith("    ") and line.strip():
            end = number
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            found += _commands(number + 1, [one[4:] for one in lines[number:end]])
            number = end
            before_blank = True
            continue
        before_blank = not line.strip()
        number += 1
    return found


def _fenced(language: str, first: int, lines: list[str]) -> list[Command | File]:
    if language in ("", "sh"):
        return [*_commands(first, lines)]
    if language == "yaml" and lines and lines[0].startswith("# /"):
        return [File(first, lines[0].removeprefix("# ").strip(), "\n".join(lines) + "\n")]
    return []


def _commands(first: int, lines: list[str]) -> list[Command]:
    found = []
    held = ""
    for number, line in enumerate(lines, first):
        text = REMARK.sub("", line).strip()
        if text.endswith("\\"):
            held += text[:-1].rstrip() + " "
        elif held + text and not text.startswith("#"):
            found.append(Command(number, held + text))
            held = ""
    return found
