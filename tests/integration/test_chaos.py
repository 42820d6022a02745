"""A sample of the fault harness's scenarios (`make chaos` plays 206) on the stack that is there.

What kills is in test_whole_path.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.chaos.arena import Arena
from bench.chaos.customer import Customer
from bench.chaos.game import Game
from bench.chaos.scenarios import sample
from tests.integration.served import NAME
from tests.integration.shop import Shop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
SEED = 7


@pytest.fixture(scope="module")
def game(proxied: Arena, served: Shop) -> Iterator[Game]:
    with Customer(proxied) as customer:
        customer.ask_about(NAME)  # it is served already, so that there are answers from the first fault on
        yield Game(proxied, customer, seed=SEED, canary=NAME)
    proxied.set(events=(), seed=0, skew=0, two_hosts=False)


def test_a_sample_of_the_scenarios_loses_nothing(game: Game) -> None:
    result = game.play(sample())
    assert result.verdict.losses == ()
    assert result.errors == {}
    assert result.answers > 0
    assert result.faults["event twice"] > 0
    assert result.faults.total() > 3
