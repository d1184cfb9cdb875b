"""Which endpoint a client gets."""

from collections import Counter

from svcplane.proxy.planes.userspace.balance import ASIDE_FIRST_S, Address, Affinity, Backend, Balance, Strategy

A, B, C = ("10.244.1.1", 80), ("10.244.1.2", 80), ("10.244.2.1", 80)


def balance(*addresses: Address, **options: object) -> Balance:
    made = Balance()
    made.update(addresses, (), **options)  # type: ignore[arg-type]
    return made


def picks(made: Balance, count: int, client: str = "10.0.0.1", now: float = 0.0) -> list[Address]:
    found = [made.choose(made.cluster, client, now) for _ in range(count)]
    return [backend.address for backend in found if backend is not None]


def test_endpoints_take_turns() -> None:
    assert picks(balance(A, B, C), 7) == [A, B, C, A, B, C, A]


def test_turns_begin_where_told_whenever_there_were_none() -> None:
    made = Balance(first=4)
    made.update((A, B, C), (C,))
    assert picks(made, 4) == [B, C, A, B]
    made.update((A, B), ())
    made.update((), ())
    made.update((A, B, C), ())
    assert picks(made, 2) == [B, C]


def test_no_endpoint_is_none() -> None:
    made = balance()
    assert made.choose(made.cluster, "10.0.0.1", 0.0) is None


def test_local_pool_is_chosen_from_alone() -> None:
    made = Balance()
    made.update((A, B, C), (C,))
    assert {made.choose(made.local, "x", 0.0) for _ in range(4)} == {made.backends[C]}


def test_weights_spread_smoothly_and_zero_gets_nothing() -> None:
    made = balance(A, B, C, weights=[(A, 3), (C, 0)])
    assert picks(made, 8) == [A, A, B, A] * 2


def test_all_weights_zero_serve_all_the_same() -> None:
    assert len(picks(balance(A, B, weights=[(A, 0), (B, 0)]), 4)) == 4


def test_least_connections_go_where_fewest_are_for_the_weight() -> None:
    made = balance(A, B, strategy=Strategy.LEAST_CONNECTIONS, weights=[(A, 2)])
    count: Counter[Address] = Counter()
    for _ in range(9):
        backend = made.choose(made.cluster, "x", 0.0)
        assert backend is not None
        backend.active += 1
        count[backend.address] += 1
    assert count == {A: 6, B: 3}


def test_affinity_holds_until_the_timeout_after_the_last_connection() -> None:
    made = balance(A, B, affinity_timeout_s=10)
    assert picks(made, 3) == [A, A, A]
    assert picks(made, 1, now=9.0) == [A]
    assert picks(made, 1, now=18.0) == [A]  # refreshed at 9
    assert picks(made, 1, now=28.0) == [B]
    assert picks(made, 1, client="10.0.0.2") == [A]


def test_affinity_is_shared_between_both_pools() -> None:
    made = Balance()
    made.update((A, B), (B,), affinity_timeout_s=10)
    first = made.choose(made.local, "x", 0.0)
    assert [made.choose(made.cluster, "x", 0.0) for _ in range(2)] == [first, first]


def test_affinity_is_forgotten_when_its_endpoint_goes_even_if_it_comes_back() -> None:
    made = balance(A, B, affinity_timeout_s=10)
    assert picks(made, 1) == [A]
    made.update((B,), (), affinity_timeout_s=10)
    assert made.affinity is not None
    assert not made.affinity
    made.update((A, B), (), affinity_timeout_s=10)
    assert picks(made, 2) == [B, B]


def test_affinity_moves_when_the_endpoint_does_not_answer() -> None:
    made = balance(A, B, affinity_timeout_s=10)
    assert picks(made, 1) == [A]
    dead = made.backends[A]
    made.failed(dead, 0.0)
    again = made.choose(made.cluster, "10.0.0.1", 0.0, tried=[dead])
    assert again is made.backends[B]
    assert picks(made, 2) == [B, B]


def test_changed_timeout_counts_for_clients_remembered_before() -> None:
    made = balance(A, B, affinity_timeout_s=100)
    picks(made, 1)
    made.update((A, B), (), affinity_timeout_s=10)
    assert picks(made, 1, now=20.0) == [B]


def test_affinity_switched_off_is_off() -> None:
    made = balance(A, B, affinity_timeout_s=100)
    made.update((A, B), ())
    assert len(set(picks(made, 2))) == 2


def test_affinity_table_is_bounded_and_expires() -> None:
    table, backend = Affinity(10, capacity=2), Backend(A)
    for number, client in enumerate("xyz"):
        table.remember(client, backend, float(number))
    assert [entry[0] for entry in table.entries(2.0)] == ["y", "z"]
    table.expire(11.5)
    assert [entry[0] for entry in table.entries(11.5)] == ["z"]
    table.forget("z")
    assert table.get("z", 11.5) is None


def test_endpoint_that_failed_is_set_aside_for_a_while_and_longer_each_time() -> None:
    made = balance(A, B)
    dead = made.backends[A]
    made.failed(dead, 0.0)
    assert picks(made, 4, now=1.0) == [B] * 4
    assert A in picks(made, 2, now=ASIDE_FIRST_S)
    made.failed(dead, 10.0)
    assert picks(made, 4, now=10.0 + ASIDE_FIRST_S) == [B] * 4
    made.answered(dead)
    assert A in picks(made, 2, now=10.0 + ASIDE_FIRST_S)


def test_all_set_aside_serve_all_the_same() -> None:
    made = balance(A, B)
    for backend in made.backends.values():
        made.failed(backend, 0.0)
    assert set(picks(made, 4, now=1.0)) == {A, B}


def test_others_come_before_those_that_were_tried() -> None:
    made = balance(A, B, C)
    a, b, c = (made.backends[address] for address in (A, B, C))
    assert made.choose(made.cluster, "x", 0.0, tried=[a, c]) is b
    assert made.choose(made.cluster, "x", 0.0, tried=[b, a, c]) is b  # all were: the one tried longest ago


def test_update_keeps_what_is_known_of_endpoints_that_stay() -> None:
    made = balance(A, B)
    kept = made.backends[A]
    kept.connections = 7
    made.failed(made.backends[B], 0.0)
    made.update((A, C), ())
    assert made.backends[A] is kept
    made.update((A, B), ())
    assert B in picks(made, 2, now=1.0)  # its mark went with it
