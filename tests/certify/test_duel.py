"""The votes of a class and of its rival."""

import numpy as np

from smoothcert.certify.duel import Duel


def test_a_unanimous_vote_has_no_votes_for_a_rival():
    counts = np.array([[10, 0, 0], [3, 4, 5]])
    duel = Duel.of(counts, np.array([0, 1]), strongest_rival=True)
    assert [votes.tolist() for votes in duel] == [[10, 4], [0, 5], [10, 12]]
    assert duel.score.tolist() == [10, 5.5]
    together = Duel.of(counts, np.array([0, 1]), strongest_rival=False)
    assert [votes.tolist() for votes in together] == [[10, 4], [0, 8], [10, 12]]
    assert together.score.tolist() == [10, 4]
