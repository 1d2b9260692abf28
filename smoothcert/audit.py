"""Re-checking certificates: fresh votes for a part of the inputs, and a test of whether the claims agree with them."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom
from sklearn.utils.validation import check_is_fitted

from ._utils.checks import check_count, check_open_unit
from .certify.names import resolve_radius
from .certify.reach import certified_radii
from .noise.seeding import resolve_seed
from .results.certificates import Certificates

FloatArray = NDArray[np.float64]

#: Relative difference between radii that other machines' logarithms may cause.
MACHINES = 1e-9

#: Inputs whose votes are drawn twice, with the same noise.
REPEATED = 8


@dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """What a re-check has found; `smoothcert.Certificates.verify` makes it. See `verify` for an example.

    Parameters
    ----------
    rows : ndarray of int, shape (n_checked,)
        The inputs that were checked: a random part of those that are not abstained on.
    p_values : ndarray of float64, shape (n_checked,)
        How likely fresh votes speak as much against the claim, if it is true.
    contradicted : ndarray of bool, shape (n_checked,)
        Where the p-value is at most ``level``.
    too_large : ndarray of bool, shape (n_checked,)
        Where the radius exceeds what its own p_a and p_b certify for this input.
    p_value : float
        How likely so many contradicted inputs are, if each claim is false with probability alpha.
    repeatable : bool
        Whether the base model gave the same votes twice on the same noise. Where it did not, it is no function: near
        ties on a GPU, or a random generator of its own.
    alpha, level : float
        Of the certificates, and of the tests.
    """

    rows: NDArray[np.intp]
    p_values: FloatArray
    contradicted: NDArray[np.bool_]
    too_large: NDArray[np.bool_]
    p_value: float
    repeatable: bool
    alpha: float
    level: float

    @property
    def consistent(self) -> bool:
        """Whether nothing speaks against the claims: no radius is too large, and chance explains all contradictions."""
        return not self.too_large.any() and self.p_value > self.level

    def __repr__(self) -> str:
        verdict = "consistent" if self.consistent else "NOT consistent"
        return (
            f"Audit({verdict}: of {len(self.rows)} claims, {int(self.contradicted.sum())} contradicted by fresh votes "
            f"(p-value {self.p_value:.3g} at alpha={self.alpha:g}), {int(self.too_large.sum())} radii too large"
            f"{'' if self.repeatable else '; the base model answers the same batch in two ways'})"
        )

    def table(self) -> str:
        """Return the doubtful inputs, worst first, as a Markdown table."""
        doubtful = np.flatnonzero(self.contradicted | self.too_large)
        doubtful = doubtful[np.argsort(self.p_values[doubtful], kind="stable")]
        lines = ["| input | p-value of the claim | radius |", "|---|---|---|"]
        lines += [
            f"| {self.rows[i]} | {self.p_values[i]:.3g} | {'too large' if self.too_large[i] else 'as claimed'} |"
            for i in doubtful
        ]
        return "\n".join(lines)


def verify(
    certificates: Certificates,
    clf: Any,
    X: Any,
    *,
    fraction: float = 0.1,
    n_samples: int | None = None,
    level: float = 0.001,
    random_state: Any = None,
) -> Audit:
    """Draw fresh votes for a random part of the inputs, and test whether the claims agree with them.

    Parameters
    ----------
    certificates : Certificates
        The claims, made by a classifier with the parameters of ``clf``.
    clf : SmoothedClassifier
        Fitted. It is not changed.
    X : array-like of shape (n_inputs, ...)
        The inputs that were certified, in the same order.
    fraction : float, default=0.1
        Share of the claims to check, above 0 and at most 1; abstentions claim nothing.
    n_samples : int, optional
        Fresh votes for each input; those of ``clf`` by default.
    level : float, default=0.001
        Probability of a false alarm, for the test of all inputs together.
    random_state : int, RandomState or None, default=None
        Chooses the inputs and the noise. It must not be the one that the certificates were made with. None is fresh
        entropy, which no one who made the certificates could know.

    Returns
    -------
    audit : Audit

    Raises
    ------
    ValueError
        If an argument is invalid, or the certificates speak of something else than ``clf`` and X.

    Notes
    -----
    For each input, p_a claims that the label has at least this probability, and p_b that no other class has more (with
    ``rtol``, only their difference is claimed). Exact binomial tails, doubled, or Chernoff's bound, give the p-value. A
    true certificate is contradicted with probability at most ``level``, and a certificate is false with probability at
    most alpha. So the number of contradicted ones is compared with a binomial of probability alpha + ``level``. Where
    nothing was sampled, everything must agree.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from smoothcert import SmoothedClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = SmoothedClassifier(LogisticRegression(), bounds=(0, 8), n_samples=1000, random_state=0).fit(X, y)
    >>> verify(clf.certify(X), clf, X, fraction=0.2, random_state=1).consistent
    True
    """
    check_is_fitted(clf, "estimator_")
    level = check_open_unit("level", level)
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float, np.number)) or not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie above 0 and be at most 1, got {fraction!r}.")
    opened = clf.open_inputs(X)
    if len(opened) != len(certificates):
        raise ValueError(f"X must hold the {len(certificates)} inputs that were certified, got {len(opened)}.")
    strategy = resolve_radius(clf.radius, clf.noise_)
    if (strategy.norm, strategy.threat) != (certificates.norm, certificates.threat):
        raise ValueError(
            f"certificates are in l{certificates.norm:g} against {certificates.threat}, but clf has radius={strategy!r}"
            f". Set the parameters that the certificates were made with."
        )
    unknown = ~np.isin(certificates.labels, clf.classes_)
    if unknown.any():
        raise ValueError(
            f"certificates hold the label {certificates.labels[unknown].tolist()[0]!r}, which is not among the classes "
            f"{clf.classes_.tolist()!r}."
        )

    seed = resolve_seed(random_state)
    rng = np.random.default_rng(seed)
    claims = np.flatnonzero(~certificates.abstained)
    rows = np.sort(rng.choice(claims, size=math.ceil(fraction * len(claims)), replace=False))
    if not len(rows) or len(clf.classes_) == 1:
        none = np.zeros(len(rows), dtype=bool)
        return Audit(rows, np.ones(len(rows)), none, none, 1.0, True, certificates.alpha, level)

    claimed, inputs = certificates[rows], opened.read(rows)
    named = inputs if clf._columns is None else clf._columns.frame(inputs)
    fresh = copy.copy(clf).set_params(
        random_state=int(rng.integers(2**32)), n_samples=check_count("n_samples", n_samples or clf.n_samples)
    )
    counts = fresh.count_votes(named).estimation
    repeatable = np.array_equal(fresh.count_votes(named[:REPEATED]).estimation, counts[:REPEATED])
    top = np.argmax(clf.classes_[None] == claimed.labels[:, None], axis=1)
    if clf.noise_.n_outcomes is not None:
        known = fresh.certify(named)
        p_values = (known.labels == claimed.labels).astype(float)
        possible = known.radii
    else:
        p_values = _p_values(counts, top, claimed, by_margin=clf.rtol is not None)
        # A claim that is no claim, p_a <= p_b or NaN, certifies nothing.
        possible = np.full(len(rows), -1.0)
        able = claimed.p_a > claimed.p_b
        possible[able] = certified_radii(
            strategy, clf.algorithm(inputs.shape[1:]).mechanism, inputs[able], claimed.p_a[able], claimed.p_b[able]
        )
    too_large = ~(claimed.radii <= possible * (1 + MACHINES))
    contradicted = p_values <= level
    wrong = certificates.alpha if clf.noise_.n_outcomes is not None else certificates.alpha + level
    p_value = float(binom.sf(contradicted.sum() - 1, len(rows), min(wrong, 1.0)))
    return Audit(rows, p_values, contradicted, too_large, p_value, repeatable, certificates.alpha, level)


def _p_values(counts: NDArray[np.int64], top: NDArray[np.intp], claimed: Certificates, by_margin: bool) -> FloatArray:
    """Return how likely votes speak as much against the claims, if those are true."""
    rows, n = np.arange(len(counts)), counts.sum(axis=1)
    k_a = counts[rows, top]
    rivals = counts.copy()
    rivals[rows, top] = -1
    k_b, n_rivals = rivals.max(axis=1), counts.shape[1] - 1
    if by_margin:
        # The mean of (1 + [A] - [B])/2, whose values lie in [0, 1], is claimed for every rival B.
        mean, least = (1 + (k_a - k_b) / n) / 2, (1 + claimed.margin) / 2
        return np.minimum(n_rivals * np.exp(-n * _divergence(np.minimum(mean, least), least)), 1.0)
    for_a = binom.cdf(k_a, n, claimed.p_a)
    for_b = n_rivals * binom.sf(k_b - 1, n, np.clip(claimed.p_b, 0, 1))
    return np.minimum(2 * np.minimum(for_a, for_b), 1.0)


def _divergence(q: FloatArray, p: FloatArray) -> FloatArray:
    """Return the Kullback-Leibler divergence between two coins."""
    from scipy.special import rel_entr

    found: FloatArray = rel_entr(q, p) + rel_entr(1 - q, 1 - p)
    return found
