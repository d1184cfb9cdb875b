"""How often and how long to dial."""

from svcplane.proxy.planes.userspace.balance import Backend
from svcplane.proxy.planes.userspace.dial import DIAL_TIMEOUTS_S, Dialing

PODS = [Backend((f"10.244.1.{number}", 80)) for number in range(12)]


def run(endpoints: int, *, slow: bool) -> list[float]:
    dialing, found = Dialing(), []
    for number in range(100):
        timeout_s = dialing.next_timeout_s(endpoints)
        if timeout_s is None:
            return found
        found.append(timeout_s)
        dialing.failed(PODS[number % endpoints], timed_out=slow)
    raise AssertionError("it never gave up")


def test_time_outs_are_kube_proxys() -> None:
    assert DIAL_TIMEOUTS_S == (0.25, 0.5, 1.0, 2.0)


def test_silent_endpoints_are_given_four_attempts_in_all() -> None:
    for endpoints in (1, 2, 4, 12):
        assert run(endpoints, slow=True) == [0.25, 0.5, 1.0, 2.0]


def test_refusing_endpoints_are_all_tried() -> None:
    assert len(run(12, slow=False)) == 12
    assert len(run(4, slow=False)) == 4


def test_few_refusing_endpoints_are_dialed_four_times() -> None:
    assert len(run(1, slow=False)) == 4
    assert len(run(3, slow=False)) == 4


def test_tried_are_in_order_of_their_last_failure() -> None:
    dialing = Dialing()
    for number in (0, 1, 0):
        dialing.failed(PODS[number], timed_out=False)
    assert dialing.tried == [PODS[1], PODS[0]]
