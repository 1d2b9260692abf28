"""Whether recorded votes are a model's: some of them are drawn again.

A vote is a function of the model, the seed and the input alone. The plainest identity of a model is therefore its
behavior: it is the model that drew the votes if it draws the same votes again. The content of a model, a digest of its
parameters or fitted arrays, is recorded beside the votes where it is well defined.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._utils.warn import warn
from ..results.votes import Origin, VoteCounts
from ..sampling.batch_dependence import SAME, SAME_STEPS
from ..sampling.exact_sampler import ExactSampler, Source
from ..sampling.sampler import Votes, fingerprints
from ..sampling.values import ValueSampler, scale_of
from .inputs import Inputs
from .metadata import RunMetadata
from .run import Parts, drawn_before, sample_votes, stored_part
from .store import Store

#: Number of selection votes that are drawn again, and number of inputs among which they are chosen.
REPLAYED, CANDIDATES = 2048, 1000

#: Maximum number of inputs whose votes are drawn again.
MOST_INPUTS = 128

#: Number of inputs on which a model must repeat itself.
REPEATED = 8


def some_of(index: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """Return up to ``n`` of some positions, evenly spread."""
    return index[np.unique(np.linspace(0, len(index) - 1, min(len(index), n)).astype(int))]


def selection_votes(sampler: Source, X: NDArray[Any], n: NDArray[Any]) -> NDArray[Any]:
    """Draw ``n`` selection votes of each of some inputs, shape (n_inputs,); or all numbers, or exact probabilities."""
    with sampler.voter.ready():
        return _drawn(sampler, X, n)


def _drawn(sampler: Source, X: NDArray[Any], n: NDArray[Any]) -> NDArray[Any]:
    """Draw selection votes with a voter that is ready; see `selection_votes`."""
    if isinstance(sampler, ExactSampler):
        return sampler.draw(X).selection
    if isinstance(sampler, ValueSampler):
        return replace(sampler, n_samples=0).draw(X).selection
    votes = np.zeros((len(X), sampler.voter.n_classes), dtype=np.int64)
    for number in np.unique(n):
        drawn = replace(sampler, n_selection=int(number), n_samples=0, rule=None, all_selection=True)
        votes[n == number] = drawn.draw(X[n == number]).selection
    return votes


def differing(sampler: Source, drawn: NDArray[Any], recorded: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which votes differ from recorded ones; numbers differ where rounding does not explain it."""
    apart: NDArray[np.bool_] = drawn != recorded
    if isinstance(sampler, ValueSampler):
        limits = max(SAME, SAME_STEPS * sampler.voter.coarse_step) * scale_of(recorded)
        apart &= ~np.isclose(drawn, recorded, rtol=0, atol=limits)
    return apart


class Recorded(NamedTuple):
    """What was recorded when votes were drawn.

    Attributes
    ----------
    positions : ndarray of shape (n,)
        Of a few inputs.
    selection : ndarray of shape (n, n_classes) or (n, n_selection)
        Their selection votes: counts, exact probabilities, or numbers.
    content : str
        Content of the model.
    """

    positions: NDArray[np.intp]
    selection: NDArray[Any]
    content: str

    @classmethod
    def some(cls, positions: NDArray[np.intp], votes: Votes, content: str) -> Recorded:
        """Choose the inputs with the least unanimous votes, which tell the most, and as many votes of any inputs.

        Votes of another model, which drew a part of them, may all be unanimous.
        """
        chosen = []
        for order in np.argsort(votes.unanimity, kind="stable"), np.random.default_rng(0).permutation(len(positions)):
            n_drawn = np.cumsum(votes.drawn[0][order])
            chosen.append(order[: max(1, np.searchsorted(n_drawn, REPLAYED // 2))][: MOST_INPUTS // 2])
        rows = np.unique(np.concatenate(chosen))
        return cls(positions[rows], votes.selection[rows], content)


def check_same_model(sampler: Source, inputs: Inputs, recorded: Recorded, what: str, *, vouched: bool) -> None:
    """Raise a ValueError unless recorded votes are those of the sampler's model.

    Parameters
    ----------
    sampler : Sampler
        With the seed of the recorded votes.
    inputs : Inputs
    recorded : Recorded
    what : str
        What holds the votes.
    vouched : bool
        Whether the caller vouches for the model. Then its content or some votes may differ, but not both.
    """
    index, selection, content = recorded
    drawn = selection_votes(sampler, inputs.read(index), selection.sum(axis=1))
    apart, now = differing(sampler, drawn, selection), sampler.voter.content()
    other = np.flatnonzero(apart.any(axis=1))
    if not len(other) and same_content(content, now):
        return
    if len(other):
        i = other[0]
        found = f"X[{index[i]}] gets the selection votes {' and not '.join(_shown(apart[i], drawn[i], selection[i]))}. "
    else:
        found = f"{len(index)} inputs get the same votes, but the model's content is {now!r} and not {content!r}. "
    message, remedy = f"{what} were drawn with a different model: {found}", "Draw new votes"
    if not len(other) or (is_known(content) and is_known(now) and same_content(content, now)):
        if len(other):
            message += "Its content is the same, but precision, library versions or hardware may differ. "
        remedy += ", or pass same_model=True if you vouch for the model"
        if vouched:
            warn(f"{message}They are used, since same_model=True.")
            return
    raise ValueError(f"{message}{remedy}.")


def check_given(
    votes: VoteCounts, sampler: Source, inputs: Inputs, origin: Origin, *, vouched: bool, known: str | None
) -> None:
    """Raise a ValueError unless votes that a caller gives are those of the sampler's model on these inputs.

    Parameters
    ----------
    votes : VoteCounts
    sampler : Sampler
    inputs : Inputs
    origin : Origin
        What the sampler's own votes depend on.
    vouched : bool
        See `check_same_model`.
    known : str or None
        Content of the model when these votes were last found to be its own.
    """
    if len(votes) != len(inputs):
        raise ValueError(
            f"votes were drawn with a different X: they are those of {len(votes)} inputs, and X has {len(inputs)}. "
            f"Draw new ones, votes=clf.count_votes(X). A shard takes the votes of all inputs."
        )
    found = np.concatenate([fingerprints(sampler.mechanism, X) for _, X in inputs.chunks()])
    votes = votes[inputs.positions]
    if votes.origin.knows_inputs and not np.array_equal(votes.inputs, found):
        inputs.check_repeatable(some_of(inputs.positions, REPEATED))
    votes.check_same(origin, found)
    if votes.origin.elsewhere:
        warn(
            "votes come from elsewhere: without seed and model nothing shows that they are this classifier's. "
            "The certificates are about the model that voted."
        )
    elif not (sampler.voter.content_decides and is_known(origin.model) and known == origin.model):
        recorded = Recorded.some(inputs.positions, drawn_before(votes), votes.origin.model)
        check_same_model(sampler, inputs, recorded, "votes", vouched=vouched)


def votes_of_run(
    algorithm: Any,
    sampler: Source,
    inputs: Inputs,
    n_jobs: int | None,
    *,
    store: Any,
    fixed_seed: bool,
    y: NDArray[Any] | None = None,
    vouched: bool = False,
    decided_at: Any = None,
    skip: bool = False,
    target: NDArray[Any] | None = None,
) -> Parts:
    """Yield the votes of all inputs in parts: those that are stored, and those drawn (or computed) now.

    Parameters
    ----------
    algorithm : Algorithm or QuantileAlgorithm
    sampler, inputs, n_jobs, skip, target
        As in `sample_votes`. The seed of a store takes the place of the sampler's.
    store : str or path-like, optional
        The file that records the run.
    fixed_seed : bool
        Whether the seed is one that the caller has set.
    y : ndarray of shape (n_inputs,), optional
        True labels, for the store.
    vouched : bool, default=False
        See `check_same_model`.
    decided_at : float or list of float, optional
        See `RunMetadata`.
    """
    if store is None:
        yield from sample_votes(sampler, inputs, n_jobs, target=target, skip=skip)
        return
    run = RunMetadata.of(inputs, algorithm, sampler, fixed_seed=fixed_seed, decided_at=decided_at)
    with checked_store(store, run, sampler, inputs, vouched=vouched, skip=skip) as opened:
        if y is not None:
            opened.label(y.tolist())
        sampler = replace(sampler, seed=opened.seed)
        yield from sample_votes(sampler, inputs, n_jobs, store=opened, target=target, skip=skip)


@contextmanager
def checked_store(
    path: Any, run: RunMetadata, sampler: Source, inputs: Inputs, *, vouched: bool, skip: bool
) -> Iterator[Store]:
    """Open the store of a run whose model drew the votes that are in it, or repeats itself if there are none."""
    is_new = not Path(path).exists()
    if is_new:
        check_repeats(sampler, inputs, skip=skip)
    with Store(path, run) as store:
        index = some_of(store.finished(), MOST_INPUTS if isinstance(sampler, ValueSampler) else CANDIDATES)
        if len(index):
            votes = stored_part(store, sampler, inputs, index).votes
            recorded = Recorded.some(index, votes, store.run.model)
            again = replace(sampler, seed=store.seed)
            check_same_model(again, inputs, recorded, f"The votes in {path}", vouched=vouched)
        elif not is_new:
            check_repeats(sampler, inputs, skip=skip)
            if not vouched and not same_content(store.run.model, run.model):
                raise ValueError(f"{path} was begun with a different model, {store.run.model!r}. Use another file.")
        yield store


def _shown(apart: NDArray[np.bool_], *votes: NDArray[Any]) -> list[str]:
    """Describe the votes of an input: all counts, or of numbers the first that differs."""
    return [str((one[apart][:1] if one.dtype.kind == "f" else one).tolist()) for one in votes]


def is_known(content: str) -> bool:
    """Tell whether a content is well defined: the word after the name of the class is not "?"."""
    return content.split(maxsplit=2)[1] != "?"


def same_content(recorded: str, now: str) -> bool:
    """Tell whether contents agree as far as they are known: "?" stands for one that is not well defined.

    Examples
    --------
    >>> same_content("Net 3f21", "OptimizedModule 3f21"), same_content("Net 3f21", "Net 77ab")
    (True, False)
    """
    (_, *before), (_, *after) = recorded.split(maxsplit=2), now.split(maxsplit=2)
    return before == after or (not (is_known(recorded) and is_known(now)) and before[1:] == after[1:])


def check_repeats(sampler: Source, inputs: Inputs, *, skip: bool = False) -> None:
    """Raise a ValueError if the model votes differently on the same noise: nothing that it does can be resumed.

    The first time a few inputs share batches, the second time each is alone. Where inputs may be skipped, those that
    fail are left out, unless all do.
    """
    index = some_of(inputs.positions, REPEATED)
    index = _that_succeed(sampler, inputs, index) if skip else index
    inputs.check_repeatable(index)
    X = inputs.read(index)
    n = np.full(len(X), sampler.n_selection)
    # A voter that gets ready may copy, measure and compile a torch model.
    with sampler.voter.ready():
        together = _drawn(sampler, X, n)
        alone = np.concatenate([_drawn(sampler, X[i : i + 1], n[:1]) for i in range(len(X))])
    apart = differing(sampler, together, alone)
    other = np.flatnonzero(apart.any(axis=1))
    if len(other):
        shown = _shown(*(rows[other[0]] for rows in (apart, together, alone)))
        raise ValueError(
            f"The base model {sampler.voter.content().split()[0]} does not repeat itself: the same noisy rows got the "
            f"votes {', and then '.join(shown)}. A store could not be resumed. "
            f"Remove what is random in it (dropout, sampling) or depends on the rest of the batch, such as autocast "
            f"inside of the model, for which there is TorchInference(autocast=...)."
        )


def _that_succeed(sampler: Source, inputs: Inputs, index: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the positions of inputs that can be read and voted on, or raise the last error if there are none."""
    found = []
    for position in index:
        try:
            selection_votes(sampler, inputs.read(np.array([position])), np.full(1, sampler.n_selection))
            found.append(position)
        except Exception:
            if not found and position == index[-1]:
                raise
    return np.array(found, dtype=np.intp)
