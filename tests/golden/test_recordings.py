"""Every recording of a real Kubernetes, replayed.  `not_yet.json` lists those that do not pass yet, and why."""

import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NOT_YET: dict[str, str] = json.loads((HERE / "not_yet.json").read_text())
SCENARIOS = sorted(
    f"{scenario['group']}/{scenario['name']}"
    for path in (HERE / "data").glob("*/*.json")
    for scenario in [json.loads(path.read_text())]
)


@pytest.mark.xdist_group("golden")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_server_answers_as_recorded(scenario: str, replayed: dict[str, str]) -> None:
    difference = replayed[scenario]
    if scenario in NOT_YET:
        assert difference, f"{scenario} passes now: take it off tests/golden/not_yet.json"
    else:
        assert not difference


def test_list_of_what_does_not_pass_names_recordings_only() -> None:
    assert set(NOT_YET) <= set(SCENARIOS)
