"""Fates come from the seed, the agent and the turn, and from nothing else."""

from collections import Counter
from statistics import mean
from typing import Any

import pytest

from edgeplane.swarm.addresses import MAX_AGENTS, address_of
from edgeplane.swarm.faults import Dice, Faults, Point


def _faults(knob: str, value: float, **more: Any) -> Faults:
    return Faults(**{**more, knob: value})


def _fates(faults, count=2_000):
    dice = Dice(faults)
    return [dice.fate(1 + turn % 7, turn) for turn in range(count)]


def test_every_agent_has_an_address_of_its_own():
    """Neither the network's own nor its broadcast address is one of them."""
    made = [address_of(number) for number in range(1, MAX_AGENTS + 1)]
    assert (made[0], made[253], made[254]) == ("127.1.0.1", "127.1.0.254", "127.1.1.1")
    assert len(set(made)) == MAX_AGENTS
    assert not any(address.endswith((".0", ".255")) for address in made)


@pytest.mark.parametrize("knob", ["fail", "drop", "kill", "zombie", "latency"])
def test_a_seed_gives_the_same_fates_again(knob):
    """Another seed gives others."""
    faults = _faults(knob, 0.5, seed=7)
    assert _fates(faults) == _fates(faults)
    assert _fates(faults) != _fates(_faults(knob, 0.5, seed=8))


@pytest.mark.parametrize(
    ("knob", "field"), [("fail", "fails"), ("drop", "drops"), ("zombie", "late"), ("kill", "dies")]
)
def test_a_chance_is_what_it_says(knob, field):
    """None at 0, all at 1, and in between about as many; of the other fates there are none."""
    for chance in (0.0, 0.3, 1.0):
        fates = _fates(_faults(knob, chance, latency=1.0))
        met = [bool(getattr(fate, field) not in {False, None}) for fate in fates]
        assert mean(met) == pytest.approx(chance, abs=0.04 if chance == 0.3 else 0)
    others = {"fails", "drops", "late", "dies"} - {field}
    assert not any(getattr(fate, other) for fate in fates for other in others)


def test_deaths_are_spread_over_all_points():
    """Each moment of a request's life has its share."""
    counts = Counter(fate.dies for fate in _fates(Faults(kill=1.0)))
    assert set(counts) == set(Point)
    assert min(counts.values()) > 400


def test_latencies_have_their_mean_and_their_shape():
    """Uniform ones end at twice the mean; exponential ones go beyond."""
    even = [fate.latency for fate in _fates(Faults(latency=0.1, uniform=True))]
    steep = [fate.latency for fate in _fates(Faults(latency=0.1))]
    assert mean(even) == pytest.approx(0.1, rel=0.1)
    assert mean(steep) == pytest.approx(0.1, rel=0.1)
    assert 0 <= min(even) <= max(even) <= 0.2 < max(steep)


def test_clocks_are_off_either_way():
    """By no more than asked, each agent's by its own."""
    dice = Dice(Faults(skew=60.0))
    skews = [dice.skew(agent) for agent in range(1, 200)]
    assert -60 <= min(skews) < -30
    assert 30 < max(skews) <= 60
    assert Dice(Faults()).skew(1) == 0
