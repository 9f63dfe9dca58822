"""Who does not answer is asked ever more rarely, up to a ceiling."""

from berth.controllers.breakers import Breakers


def test_whoever_answers_is_always_asked() -> None:
    breakers = Breakers(5, 300)
    assert breakers.allows("a", 0)
    assert not breakers.suspects("a")


def test_pauses_double_up_to_the_longest() -> None:
    breakers = Breakers(5, 60)
    pauses, now = [], 0.0
    for _ in range(7):
        pauses.append(breakers.failed("a", now))
        assert not breakers.allows("a", now + pauses[-1] - 0.1)
        now += pauses[-1]
        assert breakers.allows("a", now)
    assert pauses == [5, 10, 20, 40, 60, 60, 60]


def test_a_silence_of_years_is_no_number_too_large() -> None:
    breakers = Breakers(5, 60)
    assert {breakers.failed("a", 0) for _ in range(2000)} == {5, 10, 20, 40, 60}


def test_an_answer_ends_it() -> None:
    breakers = Breakers(5, 300)
    for _ in range(5):
        breakers.failed("a", 0)
    breakers.answered("a")
    assert breakers.allows("a", 0)
    assert breakers.failed("a", 0) == 5


def test_one_endpoint_says_nothing_of_another() -> None:
    breakers = Breakers(5, 300)
    breakers.failed("a", 0)
    assert breakers.allows("b", 0)


def test_those_that_are_gone_are_forgotten() -> None:
    breakers = Breakers(5, 300)
    breakers.failed("a", 0)
    breakers.failed("b", 0)
    breakers.keep({"b", "c"})
    assert (len(breakers), breakers.suspects("b")) == (1, True)
