"""Ours and our peers' side by side: the same work in one race, as in docs/performance.md.

torch.optim, optax and scikit-learn's regressor in descents; Opacus and BackPACK in gradients of every row; gradcheck
and check_grads in verdicts. `pip install 'gdcompare[all,peers]'` brings them all; who is missing is left out, with the
line that installs it.
"""

from __future__ import annotations

import pytest

from gdcompare.timing.race import race

from .contests import CONTESTS, FASTER_OF, Contest
from .peers import MissingPeerError
from .summary import Summary

SECONDS = 3.0

PEERS = ("optim", "optax", "SGDRegressor", "Opacus", "BackPACK", "gradcheck", "check_grads")
WITH_PEERS = [
    each for each in CONTESTS.values() if each.owned and any(peer in name for name in each.entries for peer in PEERS)
]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # as `peers._quiet`
@pytest.mark.parametrize("contest", WITH_PEERS, ids=lambda each: each.title)
def test_peers(contest: Contest, timed: bool, summary: Summary) -> None:
    """Race them all; each answer is judged, whether anything is timed or not."""
    contenders, lacking = [], []
    for each in contest.contenders():
        try:
            answer = each.call()
        except MissingPeerError as error:
            lacking.append(f"{each.name}: {error}")
            continue
        judgement = each.judge(answer)
        assert judgement, f"{each.name}: {judgement.words}"
        contenders.append(each)
    if timed and contenders:
        found = race(contenders, precision=0.02, seconds=SECONDS)
        assert not found.failures, {name: str(failure) for name, failure in found.failures.items()}
        summary.add(contest.title, found, {})
    if lacking:
        summary.find(f"left out: {contest.title}", "; ".join(lacking))
        if not contenders:
            pytest.skip("; ".join(lacking))


def test_every_peer_is_in_some_contest() -> None:
    """No contest is empty for a misspelt name."""
    names = [name for contest in WITH_PEERS for name in contest.entries]
    assert all(any(peer in name for name in names) for peer in PEERS)
    for contest in CONTESTS.values():
        known = {"", *contest.entries, *FASTER_OF}
        assert all({*target.ours, target.theirs} <= known for target in contest.targets)
