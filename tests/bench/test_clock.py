"""Who takes a turn when, and what is made of the times; on a clock that only counts."""

import gc

import pytest

from fastnorm.bench.clock import LEAST_ROUNDS, MOST_CALLS, TURN, Contender, Timing, take_turns


def contender(name, calls):
    """Notes every call of it by name."""
    return Contender(lambda: name, calls.append)


def counting_clock(costs):
    """A clock on which a call of a contender costs what `costs` says, whatever it really took."""

    def clock(run, prepared):
        for name in prepared:
            run(name)
        return sum(costs[name] for name in prepared)

    return clock


def turns(calls, name):
    return [index for index, called in enumerate(calls) if called == name]


def test_median_and_quartiles():
    timing = Timing.of([5.0, 1.0, 2.0, 100.0, 3.0])
    assert (timing.median, timing.low, timing.high, timing.rounds) == (3.0, 2.0, 5.0, 5)


def test_one_round():
    timing = Timing.of([4.0])
    assert (timing.median, timing.low, timing.high, timing.rounds) == (4.0, 4.0, 4.0, 1)


def test_the_time_of_a_call_does_not_depend_on_the_calls_in_a_turn():
    costs = {"short": TURN / 64, "long": 3 * TURN}
    calls = []
    timings = take_turns({name: contender(name, calls) for name in costs}, rounds=4, clock=counting_clock(costs))
    assert timings["short"].median == pytest.approx(TURN / 64)
    assert timings["long"].median == pytest.approx(3 * TURN)
    # In each turn one call more than is timed; before the first, a turn of one to see how many it takes.
    assert len(turns(calls, "short")) == 2 + 4 * 65
    assert len(turns(calls, "long")) == 2 + 4 * 2


def test_a_call_of_no_time_ends():
    calls = []
    take_turns({"nothing": contender("nothing", calls)}, rounds=1, clock=counting_clock({"nothing": 0.0}))
    assert len(calls) == 2 + MOST_CALLS + 1


def test_contenders_alternate_and_nobody_follows_the_same_one_always():
    costs = dict.fromkeys("abc", TURN)
    calls = []
    take_turns({name: contender(name, calls) for name in costs}, rounds=3, clock=counting_clock(costs))
    in_order = "".join(calls[6::2])  # After two calls each to begin with; two per turn.
    assert in_order == "abc" "bca" "cab"


def test_a_slow_contender_sits_out_but_not_before_its_least_rounds():
    costs = {"slow": 1.0, "fast": TURN}
    timings = take_turns(
        {name: contender(name, []) for name in costs}, rounds=10, clock=counting_clock(costs), patience=0.5
    )
    assert timings["slow"].rounds == LEAST_ROUNDS
    assert timings["fast"].rounds == 10


def test_the_median_is_over_rounds():
    # Two calls to find the turn's length are followed by five turns of one call.
    seconds = iter([1.0, 9.0, 2.0, 7.0, 3.0, 4.0])
    timings = take_turns({"a": contender("a", [])}, rounds=5, clock=lambda run, prepared: next(seconds))
    assert timings["a"] == Timing(4.0, 3.0, 7.0, 5)


def test_what_a_call_needs_is_prepared_before_the_clock_starts():
    events = []

    def clock(run, prepared):
        events.append("clock")
        for state in prepared:
            run(state)
        return TURN / 2

    noted = Contender(lambda: events.append("prepare"), lambda _: events.append("run"))
    take_turns({"a": noted}, rounds=1, clock=clock)
    assert events == ["prepare"] * 2 + ["run", "clock", "run"] + ["prepare"] * 3 + ["run", "clock", "run", "run"]


def test_the_garbage_collector_is_off_while_it_counts_and_on_again_after():
    seen = []

    def clock(run, prepared):
        seen.append(gc.isenabled())
        raise KeyboardInterrupt

    counted = take_turns({"a": contender("a", [])}, rounds=1, clock=lambda run, prepared: 1.0)
    assert counted["a"].median == 1.0 and gc.isenabled()
    first = iter([True])

    def interrupted(run, prepared):
        if next(first, False):
            return 1.0
        return clock(run, prepared)

    with pytest.raises(KeyboardInterrupt):
        take_turns({"a": contender("a", [])}, rounds=1, clock=interrupted)
    assert seen == [False] and gc.isenabled()
