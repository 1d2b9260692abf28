"""Certificates of votes, without the model: other levels, bounds and radius strategies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from .._utils.checks import check_classes, check_count, check_radii, check_unmasked
from ..certify.algorithm import Algorithm
from ..certify.names import resolve, resolve_radius
from ..certify.quantiles import QuantileAlgorithm
from ..models.series import check_whole_numbers
from ..noise.box import Box
from ..noise.mechanism import NoiseMechanism
from ..noise.seeding import digests, resolve_seed
from ..noise.threat import Features
from ..results.certificates import Certificates
from ..results.decisions import Decisions
from ..results.votes import ELSEWHERE, VoteCounts, check_counts
from ..sampling.sampler import fingerprints
from .inputs import Inputs
from .metadata import RunMetadata, from_origin, from_spec, origin_of
from .run import drawn_before, in_order, some_votes
from .store import StoredRun, read_parts, read_store

#: Number of votes of a regressor that are read at once.
PART_VOTES = 2**22


def recertify(
    votes: VoteCounts,
    *,
    X: Any = None,
    radius: Any = "auto",
    scheme: str = "multiclass",
    bound: str = "clopper-pearson",
    alpha: float = 0.001,
) -> Certificates:
    """Make certificates of votes. This draws no votes and needs no model.

    Parameters
    ----------
    votes : VoteCounts
        From `SmoothedClassifier.count_votes`, a file, or `VoteCounts.from_counts`.
    X : array-like of shape (n_inputs, ...), optional
        The inputs, in raw units. The greedy strategy needs them.
    radius : str or RadiusStrategy, default="auto"
    scheme : str, default="multiclass"
    bound : str, default="clopper-pearson"
    alpha : float, default=0.001
        As in `SmoothedClassifier`.

    Returns
    -------
    certificates : Certificates
        They are about the model that voted, and true with probability 1 - alpha each if the votes are.

    Raises
    ------
    ValueError
        If a parameter is invalid, the votes are too few or impossible, or X is needed or not what was voted on.

    See Also
    --------
    VoteCounts.from_counts : Make votes of published counts.
    SmoothedClassifier.certify : Also checks that the votes are those of the classifier.

    References
    ----------
    Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019, Algorithm 1.

    Examples
    --------
    >>> counts = [[9900, 100], [4000, 6000]]
    >>> votes = VoteCounts.from_counts([7, 7], counts, noise="split", classes=[7, 8], n_features=784)
    >>> recertify(votes, radius="box").radii.round(3)
    array([0.973,   nan])
    """
    mechanism, classes = from_origin(votes.origin)
    if not len(votes):
        raise ValueError("votes must be of at least one input, got none.")
    algorithm = Algorithm(
        mechanism=mechanism,
        strategy=resolve_radius(radius, mechanism.prices, mechanism.features.names),
        classes=classes,
        scheme=scheme,
        bound=bound,
        alpha=alpha,
        n_selection=int(votes.selection[0].sum()),
        n_samples=votes.n_samples,
    )
    if X is None:
        return algorithm.certify(drawn_before(votes), None)
    known = votes.inputs if votes.origin.knows_inputs else None
    found = _certified_inputs(algorithm.mechanism, X, np.arange(len(votes)), len(votes), known)
    return in_order((rows, algorithm.certify(drawn_before(votes[rows]), part)) for rows, part in found)


def votes_from_counts(
    selection: Any,
    estimation: Any,
    *,
    noise: Any,
    classes: Any,
    X: Any,
    n_features: int | None,
    bounds: Any,
    costs: Any,
) -> VoteCounts:
    """Make votes of counts from elsewhere; see `VoteCounts.from_counts`."""
    noise, labels = resolve("noise", noise), check_classes(classes)
    noise.check()
    if (X is None) == (n_features is None):
        raise ValueError("Give either X, the inputs, or n_features, the number of features of one input.")
    check_unmasked("selection", selection)
    check_unmasked("estimation", estimation)
    chosen = np.asarray(selection)
    if chosen.ndim == 1:
        unknown = ~np.isin(chosen, labels)
        if unknown.any():
            raise ValueError(f"selection must hold classes or counts, got {chosen[unknown][0]!r}.")
        selection = (chosen[:, None] == labels).astype(np.int64)
    # Copies: callers may count in arrays that they use again.
    counts = check_counts(np.array(selection), np.array(estimation), len(labels))
    names = names_of(X)
    opened = None if X is None else _opened(X, Features.from_costs(costs, names=names))
    shape = (check_count("n_features", n_features),) if opened is None else opened.shape
    features = Features.from_costs(costs, names=names, shape=shape)
    box = Box.from_bounds(bounds, names=names, unbounded=~features.numeric)
    mechanism = NoiseMechanism(box, noise, shape, features)
    if opened is None:
        # Numbers stand for inputs that are not known.
        inputs = digests(np.arange(len(counts["selection"]))[:, None])
    else:
        inputs = np.concatenate([fingerprints(mechanism, part) for _, part in _chunks(opened, mechanism)])
    seed = resolve_seed(None) if noise.n_outcomes is None else 0
    origin = origin_of(mechanism, labels, seed=seed, model=ELSEWHERE[X is None])
    return VoteCounts(**counts, inputs=inputs, origin=origin)


def certificates_from_store(path: str | os.PathLike[str], *, partial: bool = False, **choices: Any) -> Certificates:
    """Make certificates from a store; see `Certificates.from_store`."""
    return recertified(read_store(path), partial=partial, **choices)


def decisions_from_store(path: str | os.PathLike[str], *, partial: bool = False) -> Decisions:
    """Make decisions from a store; see `Decisions.from_store`."""
    return decided(read_store(path), partial=partial)


def decided(stored: StoredRun, *, partial: bool = False) -> Decisions:
    """Make decisions from what was read of a store; see `Decisions.from_store`."""
    _check_labels_recorded(stored, partial)
    at = stored.run.decided_at
    if at is None:
        raise ValueError(f"{stored.path} holds a run of certify, not of certify_at. Use Certificates.from_store(path).")
    algorithm, failed = stored_algorithm(stored.run), np.array(sorted(stored.failures), dtype=np.intp)
    radii = np.broadcast_to(at, (stored.run.n_inputs, *np.shape(at)))
    found = [(failed, algorithm.failed_decisions(radii[failed], stored.votes))]
    if len(stored):
        found.append((stored.index, algorithm.decisions(stored.votes, None, radii[stored.index], stored.reach)))
    return in_order(found)


def recertified(stored: StoredRun, *, X: Any = None, partial: bool = False, **choices: Any) -> Certificates:
    """Make certificates from what was read of a store; see `Certificates.from_store`."""
    run = stored.run
    _check_labels_recorded(stored, partial)
    if run.decided_at is not None:
        raise ValueError(
            f"{stored.path} holds decisions at the radius {run.decided_at}, whose votes were enough for these alone. "
            f"Use Decisions.from_store(path)."
        )
    algorithm = stored_algorithm(run, names_of(X), **choices)
    found = [(np.array(sorted(stored.failures), dtype=np.intp), algorithm.failed(len(stored.failures), stored.votes))]
    if X is None and len(stored):
        found.append((stored.index, algorithm.certify(stored.votes, None, stored.reach)))
    elif len(stored):
        parts = _certified_inputs(algorithm.mechanism, X, stored.index, run.n_inputs, stored.votes.inputs)
        found += [(stored.index[rows], algorithm.certify(some_votes(stored.votes, rows), part)) for rows, part in parts]
    return in_order(found)


def quantiles_from_store(
    path: Any,
    name: str,
    value: Any,
    *,
    strategy: Any = None,
    quantile: float | None = None,
    alpha: float | None = None,
    X: Any = None,
    partial: bool = False,
) -> Any:
    """Make intervals at radii, or radii within tolerances; see `Intervals.from_store` and `ToleranceRadii.from_store`.

    ``name`` is "radius" or "tolerance". Only the votes of one part are in memory at a time.
    """
    with closing(read_parts(path, PART_VOTES)) as parts:
        failed = next(parts)
        run, index = failed.run, failed.recorded
        run.check_holds("numbers", path)
        radius = None if strategy is None else resolve("strategy", strategy)
        algorithm = stored_algorithm(run, names_of(X), radius=radius, quantile=quantile, alpha=alpha)
        at = check_radii(value, run.n_inputs, several=name == "radius", name=name)
        mechanism = algorithm.mechanism
        inputs = None if X is None else _same_shape(mechanism, X, run.n_inputs)
        certify = algorithm.certify if name == "radius" else algorithm.certify_within
        found = [(index, algorithm.failed(**{name: at[index]}))]
        for stored in parts:
            index, votes = stored.index, stored.votes
            part = None if inputs is None else _same_inputs(mechanism, inputs.read(index), index, votes.inputs)
            found.append((index, certify(votes, part, at[index], stored.reach)))
    check_complete(path, run, sum(len(index) for index, _ in found), partial)
    return in_order(found)


def check_complete(path: Any, run: RunMetadata, n_recorded: int, partial: bool) -> None:
    """Raise a ValueError unless a run has ended, or the finished part of one is asked for."""
    n_inputs = len(run.positions)
    if not partial and n_recorded < n_inputs:
        raise ValueError(
            f"{path} holds {n_recorded} of {n_inputs} inputs: the run has not ended. Resume it, or take the finished "
            f"inputs with --partial (in Python: partial=True)."
        )
    if not n_recorded:
        raise ValueError(f"{path} holds no finished input yet.")


def names_of(X: Any) -> list[Any] | None:
    """Return the names of the columns of inputs, if they have names."""
    return list(X.columns) if hasattr(X, "columns") else None


def stored_algorithm(run: RunMetadata, names: list[Any] | None = None, *, radius: Any = None, **choices: Any) -> Any:
    """Return the algorithm of a run with its choices, except those that are given.

    ``names`` are those of the columns, where the store has none.
    ``radius`` is a strategy. A classifier's choices are ``scheme``, ``bound`` and ``alpha``, and those of a regressor
    ``quantile`` and ``alpha``.
    """
    mechanism = NoiseMechanism(run.box, from_spec("noise", run.noise), run.shape, run.features)
    strategy = from_spec("radius", run.parameters["radius"]) if radius is None else radius
    strategy = resolve_radius(strategy, mechanism.prices, run.features.names or names)
    stated = {name: value for name, value in run.parameters.items() if name not in ("estimation", "radius")}
    stated |= {name: value for name, value in choices.items() if value is not None}
    if run.holds_numbers:
        return QuantileAlgorithm(mechanism=mechanism, strategy=strategy, **stated)
    return Algorithm(mechanism=mechanism, strategy=strategy, classes=run.classes, **stated)


def _check_labels_recorded(stored: StoredRun, partial: bool) -> None:
    """Raise a ValueError unless a store holds votes for labels, of a run that has ended or in part."""
    stored.run.check_holds("labels", stored.path)
    check_complete(stored.path, stored.run, len(stored.recorded), partial)


def votes_from_store(path: str | os.PathLike[str]) -> VoteCounts:
    """Return the votes of a finished run; see `VoteCounts.from_store`."""
    stored = read_store(path)
    run = stored.run
    _check_labels_recorded(stored, partial=False)
    if run.parameters["estimation"] == "exact":
        raise ValueError(f"{path} holds exact probabilities and no votes. Use Certificates.from_store(path).")
    if run.parameters["rtol"] is not None or run.decided_at is not None:
        stopped = f"radius={run.decided_at}" if run.decided_at is not None else f"rtol={run.parameters['rtol']}"
        raise ValueError(
            f"{path} holds votes whose drawing stopped early ({stopped}): bounds for a fixed number of votes would be "
            f"wrong. Use Certificates.from_store(path) or Decisions.from_store(path), which account for it."
        )
    if stored.failures:
        raise ValueError(
            f"{path} holds {len(stored.failures)} inputs that failed, such as X[{min(stored.failures)}], and have no "
            f"votes. Use Certificates.from_store(path), which marks them."
        )
    votes = stored.votes
    return VoteCounts(selection=votes.selection, estimation=votes.estimation, inputs=votes.inputs, origin=run.origin())


def _opened(X: Any, features: Features | None = None) -> Inputs:
    """Return inputs that are checked; features that are fixed may hold missing values."""
    anything = features is not None and features.fixed.any()

    def check(part: Any) -> Any:
        options: dict[str, Any] = {"allow_nd": True, "ensure_2d": False, "dtype": "numeric"}
        check_unmasked("X", part)
        try:
            found = check_array(part, ensure_all_finite=not anything, **options)
        except ValueError as error:
            if features is None or not (features.n_categories > 0).any():
                raise
            raise ValueError(
                f"X must hold numbers, and categories as codes from 0 in the order of the fitted model, since votes do "
                f"not know their names ({error}). If an estimator drew them, use its certify(X, votes=votes)."
            ) from error
        check_whole_numbers(part, found)
        if features is not None and anything:
            check_array(features.without_fixed(found), **options)
        return found

    return Inputs(X, check)


def _chunks(inputs: Inputs, mechanism: NoiseMechanism) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
    """Yield the chunks of inputs, with one warning if they look as if they had other units than the box."""
    warned = False
    for index, part in inputs.chunks():
        warned = warned or mechanism.box.warn_clipped(mechanism.bounded(part))
        yield index, part


def _certified_inputs(
    mechanism: NoiseMechanism, X: Any, positions: NDArray[np.intp], n_inputs: int, known: NDArray[Any] | None
) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
    """Yield rows of votes and their inputs, after a check that X are the inputs that were voted on.

    Parameters
    ----------
    mechanism : NoiseMechanism
    X : array-like or sequence
    positions : ndarray of shape (n_rows,)
        The position in X of each row of votes.
    n_inputs : int
    known : ndarray of uint8, shape (n_rows, 16), optional
        Fingerprints of the inputs.
    """
    for index, part in _chunks(_same_shape(mechanism, X, n_inputs), mechanism):
        rows, part = np.flatnonzero(np.isin(positions, index)), part[np.isin(index, positions)]
        if len(part):
            yield rows, part if known is None else _same_inputs(mechanism, part, index, known[rows])


def _same_shape(mechanism: NoiseMechanism, X: Any, n_inputs: int) -> Inputs:
    """Return inputs that are checked, or raise a ValueError unless they have the shape of those that were voted on."""
    inputs, expected = _opened(X, mechanism.features), (n_inputs, *mechanism.shape)
    if (len(inputs), *inputs.shape) != expected:
        raise ValueError(
            f"X must be the inputs of the votes, of shape {expected}, got shape {(len(inputs), *inputs.shape)}."
        )
    return inputs


def _same_inputs(
    mechanism: NoiseMechanism, part: NDArray[Any], index: NDArray[np.intp], known: NDArray[Any]
) -> NDArray[Any]:
    """Return some inputs, or raise a ValueError unless their fingerprints are the known ones."""
    if not np.array_equal(fingerprints(mechanism, part), known):
        raise ValueError(f"X must be the inputs of the votes: some of {index[0]} to {index[-1]} differ from those.")
    return part
