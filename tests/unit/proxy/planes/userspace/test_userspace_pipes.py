"""Which pipe a direction is spliced through."""

from svcplane.proxy.planes.userspace.pipes import ALONE, LARGE, MANY, SMALL, PipePool


def test_one_that_flows_alone_has_a_smaller_pipe_than_several_and_many_have_the_smallest() -> None:
    pool = PipePool()
    taken = [pool.take() for _ in range(MANY + 2)]
    pipes = [pipe for pipe in taken if pipe is not None]
    try:
        assert [pipe.wanted for pipe in pipes] == [ALONE, *[LARGE] * (MANY - 1), SMALL, SMALL]
    finally:
        for pipe in pipes:
            pool.give_back(pipe, dirty=True)


def test_a_clean_pipe_is_used_again_for_its_size_and_a_dirty_one_is_not() -> None:
    pool = PipePool()
    first, second = pool.take(), pool.take()
    assert first is not None
    assert second is not None
    pool.give_back(second, dirty=False)
    pool.give_back(first, dirty=False)
    again, other = pool.take(), pool.take()
    assert (again, other) == (first, second)
    pool.give_back(second, dirty=True)
    fresh = pool.take()
    assert fresh is not None
    assert fresh is not second
    for pipe in (first, fresh):
        pool.give_back(pipe, dirty=True)
