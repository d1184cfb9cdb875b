"""Which of other people's rules drop a packet: surely, perhaps, or not."""

import json
from dataclasses import replace

import pytest

from svcplane.kernel.ruleset import nft, xtables
from svcplane.kernel.ruleset.objects import ForeignChain, Ruleset
from svcplane.understand.foreign import Connection, Drop, Probed, Stage, drops, stages

POD, ENDPOINT = "10.244.1.5", "10.244.2.6"
PACKET = Probed(POD, ENDPOINT, "tcp", 8080)


def nobody(chain: ForeignChain) -> bool:
    return False


def saved(*rules: str, policy: str = "ACCEPT") -> Ruleset:
    chains = [f":FORWARD {policy} [0:0]", ":SUB - [0:0]", ":KUBE-FORWARD - [0:0]"]
    return Ruleset(xtables.parse("\n".join(["*filter", *chains, *rules, "COMMIT"]), "ip"))


def found(rules: Ruleset, packet: Probed = PACKET, *, possible: bool = False) -> list[Drop]:
    return drops(rules, Stage("forward", packet), nobody, possible=possible)


@pytest.mark.parametrize(
    "rule",
    [
        "-A FORWARD -d 10.244.2.0/24 -j DROP",
        "-A FORWARD -s 10.244.1.5/32 -p tcp -m tcp --dport 8080 -j REJECT --reject-with icmp-port-unreachable",
        "-A FORWARD -p tcp -m multiport --dports 80,8000:8100 -j DROP",
        '-A FORWARD ! -s 192.0.2.0/24 -m comment --comment "a b" -m conntrack --ctstate NEW -j DROP',
        "-A FORWARD -m iprange --dst-range 10.244.2.1-10.244.2.9 -j DROP",
    ],
)
def test_a_rule_that_fits_drops(rule: str) -> None:
    dropped = found(saved(rule))
    assert [(drop.rule, drop.sure) for drop in dropped] == [(rule, True)]


@pytest.mark.parametrize(
    "rule",
    [
        "-A FORWARD -d 10.244.3.0/24 -j DROP",
        "-A FORWARD -p udp -j DROP",
        "-A FORWARD -p tcp -m tcp --dport 81 -j DROP",
        "-A FORWARD ! -s 10.244.0.0/16 -j DROP",
        "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
        "-A FORWARD -d 10.244.2.6/32 -j LOG",
    ],
)
def test_a_rule_that_does_not_fit_drops_nothing(rule: str) -> None:
    assert found(saved(rule), possible=True) == []


def test_what_is_not_known_makes_a_drop_possible_only() -> None:
    rules = saved("-A FORWARD -m set --match-set blocked dst -j DROP")
    assert found(rules) == []
    assert [drop.sure for drop in found(rules, possible=True)] == [False]
    by_interface = saved("-A FORWARD -i eth0 -j DROP")
    assert [drop.sure for drop in found(by_interface, possible=True)] == [False]
    assert [drop.sure for drop in found(by_interface, Probed(POD, ENDPOINT, "tcp", 8080, "eth0"))] == [True]
    assert found(by_interface, Probed(POD, ENDPOINT, "tcp", 8080, "eth1"), possible=True) == []


def test_an_earlier_accept_saves_the_packet_and_a_possible_one_makes_the_drop_possible() -> None:
    accept, drop = "-A FORWARD -d 10.244.0.0/16 -j ACCEPT", "-A FORWARD -s 10.244.0.0/16 -j DROP"
    assert found(saved(accept, drop), possible=True) == []
    perhaps = saved("-A FORWARD -m mark --mark 0x1 -j ACCEPT", drop)
    assert found(perhaps) == []
    assert [drop.sure for drop in found(perhaps, possible=True)] == [False]


def test_jumps_are_followed_and_return() -> None:
    jump = "-A FORWARD -d 10.244.2.6/32 -j SUB"
    rules = saved(jump, "-A SUB -p udp -j RETURN", "-A SUB -p tcp -j DROP")
    assert [drop.chain.name for drop in found(rules)] == ["SUB"]
    returned = saved(jump, "-A FORWARD -s 10.244.1.5/32 -j DROP", "-A SUB -p tcp -j RETURN", "-A SUB -j DROP")
    assert [drop.chain.name for drop in found(returned)] == ["FORWARD"]


def test_a_policy_drops_what_no_rule_accepts() -> None:
    assert "its policy is drop" in found(saved(policy="DROP"))[0].rule
    assert found(saved("-A FORWARD -s 10.244.0.0/16 -j ACCEPT", policy="DROP")) == []
    assert [d.sure for d in found(saved("-A FORWARD -m mark --mark 1 -j ACCEPT", policy="DROP"), possible=True)] == [
        False
    ]


def test_our_own_chains_are_left_out() -> None:
    rules = saved("-A FORWARD -j KUBE-FORWARD", "-A KUBE-FORWARD -j DROP")
    ours = drops(rules, Stage("forward", PACKET), lambda chain: chain.name.startswith("KUBE-"))
    assert ours == []
    assert found(rules) != []


BAD = {"prefix": {"addr": "10.244.1.0", "len": 24}}
NFT = {
    "nftables": [
        {
            "set": {
                "family": "inet",
                "table": "guard",
                "name": "bad",
                "elem": [{"prefix": {"addr": "10.244.1.0", "len": 24}}],
            }
        },
        {"chain": {"family": "inet", "table": "guard", "name": "f", "hook": "forward", "prio": -5, "policy": "accept"}},
        {
            "rule": {
                "family": "inet",
                "table": "guard",
                "chain": "f",
                "handle": 6,
                "comment": "no bad",
                "expr": [
                    {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "@bad"}},
                    {
                        "match": {
                            "op": "==",
                            "left": {"payload": {"protocol": "tcp", "field": "dport"}},
                            "right": {"set": [80, {"range": [8080, 8090]}]},
                        }
                    },
                    {"counter": {"packets": 0, "bytes": 0}},
                    {"drop": None},
                ],
            }
        },
    ]
}


def test_nftables_sets_ranges_and_protocols() -> None:
    rules = Ruleset(nft.parse(json.dumps(NFT).encode()))
    assert ['comment "no bad"' in drop.rule for drop in found(rules)] == [True]
    assert found(rules, Probed("10.244.7.5", ENDPOINT, "tcp", 8080)) == []
    assert found(rules, Probed(POD, ENDPOINT, "udp", 8080)) == []
    assert found(rules, Probed(POD, ENDPOINT, "tcp", 9000)) == []
    assert found(rules, Probed("fd00::5", "fd00::6", "tcp", 8080)) == []
    assert nft.parse(json.dumps(NFT).encode(), [("inet", "guard")]) == {}


VIP = "10.96.0.1"
WAY = Connection(POD, VIP, 80, ENDPOINT, 8080, "tcp", iifname="veth1", oifname="eth0")


@pytest.mark.parametrize(
    ("way", "mode", "passed"),
    [
        (WAY, "nftables", ["prerouting VIP", "prerouting", "forward", "postrouting", "forward back"]),
        (replace(WAY, local=True), "iptables", ["prerouting VIP", "prerouting", "input", "output back"]),
        (replace(WAY, own=True), "nftables", ["output VIP", "output", "postrouting", "input back"]),
        (WAY, "ipvs", ["prerouting VIP", "input VIP", "output", "postrouting", "forward back"]),
        (replace(WAY, own=True), "ipvs", ["output VIP", "output", "postrouting", "input back"]),
        (WAY, "userspace", ["prerouting VIP", "prerouting ?", "input ?", "output", "postrouting", "input back"]),
        (replace(WAY, vip=ENDPOINT, port=8080), "userspace", ["prerouting", "prerouting", "forward", "postrouting"]),
    ],
)
def test_a_connection_looks_otherwise_before_and_after_the_translation(
    way: Connection, mode: str, passed: list[str]
) -> None:
    def told(stage: Stage) -> str:
        if stage.packet.state == "established":
            return f"{stage.hook} back"
        return f"{stage.hook} {({VIP: 'VIP', '': '?'}).get(stage.packet.dst, '')}".rstrip()

    assert [told(stage) for stage in stages(way, mode)][: len(passed)] == passed


def in_chain(hook: str, priority: int, *conditions: object) -> Ruleset:
    place = {"family": "inet", "table": "guard"}
    chain = {"chain": {**place, "name": "c", "hook": hook, "prio": priority, "policy": "accept"}}
    rule = {"rule": {**place, "chain": "c", "handle": 6, "expr": [*conditions, {"drop": None}]}}
    return Ruleset(nft.parse(json.dumps({"nftables": [chain, rule]}).encode()))


def to(ip: str) -> dict[str, object]:
    return {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": ip}}


@pytest.mark.parametrize(
    ("rules", "dropped"),
    [
        (in_chain("prerouting", -300, to(VIP)), True),
        (in_chain("prerouting", -300, to(ENDPOINT)), False),
        (in_chain("prerouting", 0, to(ENDPOINT)), True),
        (in_chain("prerouting", 0, to(VIP)), False),
        (in_chain("forward", 0, to(ENDPOINT)), True),
        (in_chain("postrouting", 50, to(ENDPOINT)), True),
        (in_chain("input", 0, to(ENDPOINT)), False),
        (in_chain("output", 0, to(ENDPOINT)), False),
        (in_chain("forward", 0, to(POD)), True),  # the answer
        (in_chain("forward", 0, {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "eth0"}}), True),
        (in_chain("input", 0, {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}}), False),
    ],
)
def test_base_chains_see_what_the_packet_is_at_their_priority(rules: Ruleset, dropped: bool) -> None:
    found = [drop for stage in stages(WAY, "nftables") for drop in drops(rules, stage, nobody)]
    assert bool(found) is dropped
    assert all(drop.hook and f"inet table guard, chain c (at {drop.hook})" in str(drop) for drop in found)
