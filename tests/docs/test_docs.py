"""Every command that README and docs show is run, page by page."""

import re
from collections import Counter
from pathlib import Path

import pytest
from commands import Command, File, steps
from session import ROOT, Session
from settings import ELSEWHERE, PAGES

SHOWN = {
    str(path.relative_to(ROOT)): steps(path.read_text())
    for path in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]
}


def test_every_page_with_commands_is_run() -> None:
    showing = {name for name, found in SHOWN.items() if found}
    assert showing - set(PAGES) - set(ELSEWHERE) == set(), "tell in settings.py where their commands run"
    assert set(PAGES) - showing == set(), "no command is shown there any more"


def test_what_is_said_of_commands_is_of_commands_that_are_shown() -> None:
    for name, page in PAGES.items():
        texts = {step.text for step in SHOWN[name] if isinstance(step, Command)}
        assert {*page.cannot, *page.status, *page.judging} <= texts, name


def test_links_lead_somewhere() -> None:
    for name in [*SHOWN, "docs/reference/cli.md", "docs/reference/configuration.md", "CHANGELOG.md"]:
        text = (ROOT / name).read_text()
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target:
                assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"


def test_commands_of_a_page_are_found() -> None:
    page = "text\n\n    one   # why\n    two \\\n      more\n\n```text\nno\n```\n\n- item\n    no\n\n```\nthree\n```\n"
    page += "```yaml\n# /etc/x.yaml\na: 1\n```\n"
    assert steps(page) == [
        Command(3, "one"),
        Command(5, "two more"),
        Command(15, "three"),
        File(18, "/etc/x.yaml", "# /etc/x.yaml\na: 1\n"),
    ]


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.tools("unshare", "ip", "nft", "iptables", "conntrack", "kubectl", "curl", "etcd")
@pytest.mark.parametrize("name", PAGES)
def test_commands_do_what_the_page_says(name: str, tmp_path: Path) -> None:
    page = PAGES[name]
    wanted = [step for step in SHOWN[name] if not (isinstance(step, Command) and step.text in page.cannot)]
    if not wanted:
        return  # each command of the page is on the list of those that cannot run
    with Session(tmp_path) as session:
        for command in page.before:
            status, said = session.run(command)
            assert status == 0, f"before the page: {command}\n{said}"
        shown: Counter[str] = Counter()
        for step in wanted:
            if isinstance(step, File):
                session.write(step.path, step.content)
                continue
            status, said = session.run(step.text)
            expected = page.status.get(step.text, ())[shown[step.text] :][:1] or (0,)
            shown[step.text] += 1
            allowed = (0, 1) if step.text in page.judging else expected
            assert status in allowed, f"{name}:{step.line}: {step.text}\n{said}"
            assert "Traceback" not in said, f"{name}:{step.line}: {step.text}\n{said}"
        assert session.ended() == []
