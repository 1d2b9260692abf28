"""Checks of a store by a third party: its votes are drawn again, and fresh votes are compared with them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom, ks_2samp

from .._utils.checks import check_fraction, check_open_unit
from .._utils.pipelines import last_step
from ..certify.algorithm import Algorithm
from ..certify.quantiles import QuantileAlgorithm
from ..noise.seeding import resolve_seed
from ..results.tables import format_table
from ..sampling.exact_sampler import Shares
from ..sampling.sampler import fingerprints
from .database import StoreError
from .inputs import Inputs
from .metadata import RunMetadata
from .model_check import differing, same_content
from .run import kept_values, sample_votes
from .store import StoredRun, read_store

#: The relative difference between numbers, such as reaches and radii, that the logarithms of another machine may cause.
MACHINES = 1e-9

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class StoreAudit:
    """The result of `smoothcert.verify_store`.

    Parameters
    ----------
    recorded : ndarray of int, shape (n_recorded,)
        The positions of the finished inputs in the store.
    other_input : ndarray of bool, shape (n_recorded,)
        Whether X holds another input there than the one that was certified.
    rows : ndarray of int, shape (n_checked,)
        The positions of the inputs whose votes were drawn again.
    other_votes : ndarray of bool, shape (n_checked,)
        Whether the recorded votes, or what is recorded of the input, are not those of the recorded seed.
    p_values : ndarray of float64, shape (n_checked,)
        The probability that recorded and fresh votes differ as much as they do, for an honest record; 1 without fresh
        votes.
    same_model : bool
        Whether the content of the model is the recorded one, as far as it is well defined.
    level : float
        The probability of a false alarm.

    See Also
    --------
    smoothcert.verify_store : Make an audit.

    Examples
    --------
    >>> no = np.array([False, False])
    >>> audit = StoreAudit(
    ...     recorded=np.array([0, 1]), other_input=no, rows=np.array([0, 1]), other_votes=np.array([False, True]),
    ...     p_values=np.ones(2), same_model=True, level=0.001)
    >>> audit
    StoreAudit(NOT consistent: of 2 recorded inputs, 0 are not those of X; of 2 checked, 1 have other votes, 0 differ \
from fresh votes; same model)
    >>> print(audit.table())
    |   input |                               finding |
    |--------:|--------------------------------------:|
    |       1 | the seed gives other votes or reaches |
    """

    recorded: NDArray[np.intp]
    other_input: NDArray[np.bool_]
    rows: NDArray[np.intp]
    other_votes: NDArray[np.bool_]
    p_values: FloatArray
    same_model: bool
    level: float

    @property
    def contradicted(self) -> NDArray[np.bool_]:
        """Whether fresh votes differ from the recorded ones more than chance explains, in all tests together."""
        return self.p_values <= self.level / max(1, len(self.rows))

    @property
    def consistent(self) -> bool:
        """Whether the model is the same and no record is false."""
        wrong = self.other_input.any() or self.other_votes.any() or self.contradicted.any()
        return bool(self.same_model and not wrong)

    def __repr__(self) -> str:
        return (
            f"StoreAudit({'consistent' if self.consistent else 'NOT consistent'}: of {len(self.recorded)} recorded "
            f"inputs, {int(self.other_input.sum())} are not those of X; of {len(self.rows)} checked, "
            f"{int(self.other_votes.sum())} have other votes, {int(self.contradicted.sum())} differ from fresh votes; "
            f"{'same' if self.same_model else 'ANOTHER'} model)"
        )

    def table(self) -> str:
        """Return the false records as a Markdown table.

        Returns
        -------
        text : str
        """
        found = [(i, "X holds another input there") for i in self.recorded[self.other_input]]
        found += [(i, "the seed gives other votes or reaches") for i in self.rows[self.other_votes]]
        pairs = zip(self.rows[self.contradicted], self.p_values[self.contradicted], strict=True)
        found += [(i, f"fresh votes differ, p-value {p:.3g}") for i, p in pairs]
        return format_table([["input", "finding"], *([str(i), text] for i, text in sorted(found))], "", "pipe")


def verify_store(
    path: Any,
    clf: Any,
    X: Any,
    *,
    fraction: float = 1.0,
    fresh: bool = False,
    level: float = 0.001,
    random_state: Any = None,
) -> StoreAudit:
    """Check the records of a run, which another person may have made, with the model and the inputs.

    Parameters
    ----------
    path : str or path-like
        A store of a classifier or a regressor.
    clf : SmoothedClassifier or SmoothedRegressor, or Pipeline that ends in one
        The fitted estimator, with the parameters of the run; see `smoothcert.stored_classifier` for classifiers.
    X : array-like of shape (n_inputs, ...) or sequence
        The inputs of the run.
    fraction : float, default=1.0
        The share of the recorded inputs whose votes are drawn again, chosen at random.
    fresh : bool, default=False
        Whether to draw votes with a new seed as well. Their author may have chosen the recorded seed.
    level : float, default=0.001
        The probability of a false alarm of all comparisons with fresh votes together.
    random_state : int, RandomState or None, default=None
        The random state of the choice of inputs and of fresh votes. None takes fresh entropy, which nobody can know in
        advance.

    Returns
    -------
    audit : StoreAudit
        ``audit.consistent`` is the verdict.

    Raises
    ------
    ValueError
        If the store is damaged, or the run has other parameters or inputs of another shape.

    See Also
    --------
    smoothcert.verify : Check certificates, of which no votes are known.

    Notes
    -----
    The inputs of all records are compared by their hashes. Votes are a function of the model, the seed and the input.
    So the recorded votes of the inputs that are checked must be drawn again to the last one, and a single false count
    is found.

    With ``fresh``, the counts of each class are compared by Fisher's exact test, and numbers by that of Kolmogorov and
    Smirnov. Bonferroni's correction covers the classes, the inputs, and for votes whose drawing stopped early the
    moments at which it might have stopped.

    References
    ----------
    .. [1] R. A. Fisher, "The Logic of Inductive Inference", Journal of the Royal Statistical Society 98, 1935.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from smoothcert import SmoothedClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = SmoothedClassifier(LogisticRegression(), bounds=(0, 8), n_samples=500, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     certificates = clf.certify(X[::25], store=f"{folder}/run.sqlite")
    ...     print(verify_store(f"{folder}/run.sqlite", clf, X[::25], fresh=True, random_state=1).consistent)
    True
    """
    clf, X = last_step(clf, X)
    level, fraction = check_open_unit("level", level), check_fraction(fraction)
    stored = read_store(path)
    run, inputs = stored.run, clf.open_inputs(X, shard=stored.run.shard, skip=bool(stored.failures))
    algorithm = clf.algorithm(inputs.shape)
    rule, sampler = _source(algorithm, run)
    now = RunMetadata.of(inputs, algorithm, sampler, fixed_seed=False, decided_at=run.decided_at)
    if differences := run.differences(now):
        raise StoreError(
            f"{path} is of another run than clf and X. Different are (stored, now): {'; '.join(differences)}."
        )
    other_input = ~np.concatenate([[], *_same_inputs(stored, algorithm, inputs)]).astype(bool)
    rng = np.random.default_rng(resolve_seed(random_state))
    chosen = random_share(np.flatnonzero(~other_input), fraction, rng)
    checked, seed = inputs.only(stored.index[chosen]), int.from_bytes(rng.bytes(16), "little")
    p_values = np.ones(len(chosen))
    if fresh and len(chosen) and (run.holds_numbers or (algorithm.may_stop and not algorithm.certain)):
        compared = _p_values_of_numbers if run.holds_numbers else _p_values
        p_values = compared(stored.votes.estimation[chosen], algorithm.sampler(seed), checked, clf.n_jobs, rule)
    return StoreAudit(
        recorded=stored.index,
        other_input=other_input,
        rows=checked.positions,
        other_votes=_other_votes(stored, chosen, sampler, checked, clf.n_jobs),
        p_values=p_values,
        same_model=same_content(run.model, sampler.voter.content()),
        level=level,
    )


def _source(algorithm: Any, run: RunMetadata) -> tuple[Any, Any]:
    """Return the rule that stops drawing, if there is one, and what draws the votes of a run again."""
    seed = run.seed or 0
    if isinstance(algorithm, QuantileAlgorithm):
        return None, algorithm.sampler(seed)
    rule = algorithm.precision_rule() if run.decided_at is None else algorithm.radius_rule()
    return rule, algorithm.source(seed, rule)


def random_share(rows: NDArray[np.intp], fraction: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Choose a share of the rows at random, and return them in order."""
    return np.sort(rng.choice(rows, size=math.ceil(fraction * len(rows)), replace=False))


def _same_inputs(stored: StoredRun, algorithm: Algorithm, inputs: Inputs) -> Iterator[NDArray[np.bool_]]:
    """Tell for each finished input, in their order, whether X holds it at its position."""
    for index, X in inputs.only(stored.index).chunks() if len(stored) else ():
        known = stored.votes.inputs[np.isin(stored.index, index)]
        yield (fingerprints(algorithm.mechanism, X) == known).all(axis=1)


def _other_votes(
    stored: StoredRun, chosen: NDArray[np.intp], sampler: Any, inputs: Inputs, n_jobs: int | None
) -> NDArray[np.bool_]:
    """Tell which inputs get other votes than the recorded ones with the same seed, or have other reaches."""
    run, other = stored.run, np.ones(len(chosen), dtype=bool)
    at = run.decided_at
    target = None if at is None else np.broadcast_to(at, (run.n_inputs, *np.shape(at)))
    for part in sample_votes(sampler, inputs, n_jobs, target=target):
        places = np.searchsorted(inputs.positions, part.index)
        rows = chosen[places]
        same = np.ones(len(rows), dtype=bool)
        for drawn, recorded in zip(part.votes.recorded, stored.votes.recorded, strict=True):
            apart = differing(sampler, drawn, recorded[rows])
            if isinstance(part.votes, Shares):
                apart &= ~np.isclose(drawn, recorded[rows], rtol=MACHINES, atol=0)
            same &= ~apart.any(axis=1)
        kept, reach = kept_values(sampler, part.X, part.votes, target, part.index), stored.reach[rows]
        same &= kept.shape == reach.shape and np.isclose(kept, reach, rtol=MACHINES, atol=0).all(axis=1)
        other[places] = ~same
    return other


def _p_values_of_numbers(
    recorded: FloatArray, sampler: Any, inputs: Inputs, n_jobs: int | None, rule: None
) -> FloatArray:
    """Return p-values of the hypothesis that recorded and fresh numbers have the same distribution."""
    p_values = np.ones(len(recorded))
    for part in sample_votes(sampler, inputs, n_jobs):
        for row, fresh in zip(np.searchsorted(inputs.positions, part.index), part.votes.estimation, strict=True):
            p_values[row] = ks_2samp(recorded[row], fresh).pvalue
    return p_values


def _p_values(recorded: NDArray[np.int64], sampler: Any, inputs: Inputs, n_jobs: int | None, rule: Any) -> FloatArray:
    """Return p-values of the hypothesis that recorded and fresh votes have the same probabilities.

    Parameters
    ----------
    recorded : ndarray of shape (n, n_classes)
    sampler, inputs, n_jobs
        What draws the fresh votes.
    rule : StoppingRule or None
        The rule at whose checkpoints drawing the recorded votes might have stopped.
    """
    fresh = np.zeros_like(recorded)
    for part in sample_votes(sampler, inputs, n_jobs):
        fresh[np.searchsorted(inputs.positions, part.index)] = part.votes.estimation
    rows, classes = np.nonzero(recorded + fresh)
    n_recorded, n_fresh = recorded.sum(axis=1)[rows], fresh.sum(axis=1)[rows]
    count, both = recorded[rows, classes], (recorded + fresh)[rows, classes]
    given = hypergeom(n_recorded + n_fresh, both, n_recorded)
    tails = 2 * np.minimum(given.cdf(count), given.sf(count - 1))
    n_tests = (1 if rule is None else len(rule.checkpoints)) * (1 if recorded.shape[1] == 2 else recorded.shape[1])
    p_values = np.ones(len(recorded))
    np.minimum.at(p_values, rows, n_tests * tails)
    return p_values
