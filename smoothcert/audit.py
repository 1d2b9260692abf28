"""Audits of certificates: fresh votes for a part of the inputs, and a test whether the certificates agree with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr
from scipy.stats import binom

from ._utils.checks import check_count, check_fraction, check_open_unit
from ._utils.pipelines import last_step
from .certify.algorithm import Algorithm
from .certify.betting import checkpoints
from .certify.duel import Duel
from .noise.seeding import resolve_seed
from .results.certificates import Certificates, FloatArray
from .results.tables import format_table
from .runs.inputs import Inputs
from .runs.run import Part, in_order, sample_votes
from .runs.verify_store import MACHINES, random_share

#: The number of inputs whose votes are drawn twice, with the same noise.
REPEATED = 8


@dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """The result of an audit; `smoothcert.Certificates.verify` makes it.

    Parameters
    ----------
    rows : ndarray of int, shape (n_checked,)
        The inputs that were checked: a random part of those with a certificate or a radius.
    p_values : ndarray of float64, shape (n_checked,)
        The probability, if the certificate is true, of fresh votes that contradict it as much as those observed.
    contradicted : ndarray of bool, shape (n_checked,)
        Whether the p-value is at most ``level``. Equal inputs get equal votes.
    too_large : ndarray of bool, shape (n_checked,)
        Whether the radius exceeds the radius that its own p_a and p_b give for this input, or these are no
        probabilities.
    p_value : float
        The probability of at least this number of different inputs with a contradicted certificate, if each input
        has one with probability alpha + ``level``.
    repeatable : bool
        Whether the base model gave the same votes twice for the same noise. Near ties on a GPU, or a random generator
        in the model, make votes differ.
    alpha, level : float
        The alpha of the certificates, and the level of the tests.
    unexplained : ndarray of bool, shape (n_checked,), optional
        Whether not even a wrong certificate explains the fresh votes: no probabilities of the classes make both the
        claim and these votes likely. None by default.

    See Also
    --------
    verify : Make an audit.

    References
    ----------
    .. [1] Hoeffding, "Probability Inequalities for Sums of Bounded Random Variables", 1963, Theorem 1.

    Examples
    --------
    >>> import numpy as np
    >>> no = np.array([False, False])
    >>> audit = Audit(np.array([3, 7]), np.array([0.4, 1e-9]), np.array([False, True]), no, 1e-4, True, 0.001, 0.001)
    >>> audit.consistent
    False
    >>> print(audit.table())
    |   input |   p-value of the claim |     radius |
    |--------:|-----------------------:|-----------:|
    |       7 |                  1e-09 | as claimed |
    """

    rows: NDArray[np.intp]
    p_values: FloatArray
    contradicted: NDArray[np.bool_]
    too_large: NDArray[np.bool_]
    p_value: float
    repeatable: bool
    alpha: float
    level: float
    unexplained: NDArray[np.bool_] | None = None

    @property
    def consistent(self) -> bool:
        """Whether no radius is too large, and chance explains the contradicted certificates and their number."""
        level = self.level if self.unexplained is None else self.level / 2
        return not self.too_large.any() and not np.any(self.unexplained) and self.p_value > level

    def __repr__(self) -> str:
        verdict = "consistent" if self.consistent else "NOT consistent"
        unexplained = 0 if self.unexplained is None else int(self.unexplained.sum())
        return (
            f"Audit({verdict}: of {len(self.rows)} claims, {int(self.contradicted.sum())} contradicted by fresh votes "
            f"(p-value {self.p_value:.3g} at alpha={self.alpha:g}), {unexplained} beyond what alpha explains, "
            f"{int(self.too_large.sum())} radii too large"
            f"{'' if self.repeatable else '; the base model answers the same batch in two ways'})"
        )

    def table(self) -> str:
        """Return the contradicted certificates and those with too large radii, worst first, as a Markdown table.

        Returns
        -------
        text : str
        """
        doubtful = np.flatnonzero(self.contradicted | self.too_large)
        doubtful = doubtful[np.argsort(self.p_values[doubtful], kind="stable")]
        verdicts = np.where(self.too_large, "too large", "as claimed")
        cells = [[str(self.rows[i]), f"{self.p_values[i]:.3g}", str(verdicts[i])] for i in doubtful]
        return format_table([["input", "p-value of the claim", "radius"], *cells], "", "pipe")


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
    """Draw fresh votes for a random part of the inputs, and test whether the certificates agree with them.

    Parameters
    ----------
    certificates : Certificates
        The certificates of a classifier with the parameters of ``clf``.
    clf : SmoothedClassifier, or Pipeline that ends in one
        The fitted classifier, which stays as it is.
    X : array-like of shape (n_inputs, ...)
        The certified inputs, in the same order.
    fraction : float, default=0.1
        The share of the certificates to check, above 0 and at most 1; abstentions without a radius do not count.
    n_samples : int, optional
        The number of fresh votes for each input; that of ``clf`` by default.
    level : float, default=0.001
        The probability of a false alarm, for the test of all inputs together.
    random_state : int, RandomState or None, default=None
        The random state of the choice of inputs and of the noise, which must differ from that of the certificates. None
        takes fresh entropy, which nobody can know in advance.

    Returns
    -------
    audit : Audit

    Raises
    ------
    ValueError
        If an argument is invalid, or the certificates do not fit ``clf`` and X.

    See Also
    --------
    smoothcert.Certificates.verify : The same as a method.

    Notes
    -----
    For each input, p_a claims a lower bound on the probability of the label, and p_b an upper bound on that of every
    other class. With ``rtol``, only the bound on their difference is claimed. The p-value comes from exact binomial
    tails, doubled because there are two of them, or from Chernoff's bound for the difference [1]_.

    A true certificate is contradicted with probability at most ``level``, and a certificate is false with probability
    at most alpha. So the number of inputs with a contradicted certificate is compared with a binomial of probability
    alpha + ``level``. Equal inputs have equal votes: they count as one, which is contradicted if one of their
    certificates is. Under deterministic noise, every certificate must agree with the counts.

    The number n of votes is that of the certificates, or of ``clf`` if they do not tell it. If all votes agree, p_a is
    alpha**(1/n): a claim of more is too large. Where no probabilities make both the claim and the fresh votes likely,
    alpha cannot explain the claim, and the audit is not consistent. Bonferroni's correction is for inputs, rivals and
    checkpoints. Both tests then share ``level``.

    References
    ----------
    .. [1] Hoeffding, "Probability Inequalities for Sums of Bounded Random Variables", 1963, Theorem 1.

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
    clf, X = last_step(clf, X)
    level, fraction = check_open_unit("level", level), check_fraction(fraction)
    opened = clf.open_inputs(X, skip=bool(np.any(certificates.failed)))
    _check_claims(certificates, clf, clf.algorithm(opened.shape), len(opened))
    rng = np.random.default_rng(resolve_seed(random_state))
    rows = random_share(np.flatnonzero(_are_claims(certificates)), fraction, rng)
    if not len(rows) or len(clf.classes_) == 1:
        none = np.zeros(len(rows), dtype=bool)
        return Audit(rows, np.ones(len(rows)), none, none, 1.0, True, certificates.alpha, level)
    n_fresh = check_count("n_samples", clf.n_samples if n_samples is None else n_samples)
    algorithm = clf.algorithm(opened.shape, n_samples=n_fresh, rtol=None)
    (claimed, are_possible), inputs = _with_probabilities(certificates[rows], clf, algorithm), opened.read(rows)
    parts, counts, repeatable = _fresh_votes(algorithm.sampler(int(rng.integers(2**32))), inputs, clf.n_jobs)
    top = np.argmax(clf.classes_[None] == claimed.labels[:, None], axis=1)
    duel, n_rivals = Duel.of(counts, top, strongest_rival=True), len(clf.classes_) - 1
    if algorithm.exact:
        known = in_order((part.index, algorithm.certify(part.votes, part.X)) for part in parts)
        agrees = (known.labels == claimed.labels) & (claimed.p_a <= known.p_a) & (claimed.p_b >= known.p_b)
        p_values, possible, wrong = agrees.astype(float), known.radii, 0.0
    else:
        p_values = _p_values(duel, n_rivals, claimed, by_margin=clf.rtol is not None)
        possible, wrong = algorithm.radii(claimed.p_a, claimed.p_b, inputs), min(certificates.alpha + level, 1.0)
    # A possible radius is NaN where p_a and p_b claim no margin. Any radius is too large there.
    too_large = ~(are_possible & (claimed.radii <= possible * (1 + MACHINES)))
    contradicted = p_values <= level
    p_value = _p_value(contradicted, np.concatenate([part.votes.inputs for part in parts]), wrong)
    looks = None if clf.rtol is None else len(checkpoints(clf.n_samples))
    unexplained = _unexplained(duel, n_rivals, claimed, level / 2, looks)
    return Audit(rows, p_values, contradicted, too_large, p_value, repeatable, certificates.alpha, level, unexplained)


def _fresh_votes(sampler: Any, inputs: NDArray[Any], n_jobs: int | None) -> tuple[list[Part], NDArray[np.int64], bool]:
    """Return the votes of inputs in parts, their counts, and whether the first ones come a second time."""
    parts = sorted(sample_votes(sampler, Inputs(inputs, np.asarray), n_jobs), key=lambda part: part.index[0])
    counts = np.concatenate([part.votes.estimation for part in parts])
    with sampler.voter.ready():
        again = sampler.draw(inputs[:REPEATED]).estimation
    return parts, counts, np.array_equal(again, counts[:REPEATED])


def _are_claims(certificates: Certificates) -> NDArray[np.bool_]:
    """Tell which certificates claim anything: all but abstentions, which have no radius."""
    return ~(certificates.abstained & np.isnan(certificates.radii))


def _with_probabilities(
    claimed: Certificates, clf: Any, algorithm: Algorithm
) -> tuple[Certificates, NDArray[np.bool_]]:
    """Return certificates with the nearest probabilities, which tests need, and which of them claim possible ones.

    If all of n votes agree, p_a is alpha**(1/n), by the bound of Clopper and Pearson. No votes give more, unless the
    bound is random. Probabilities that are known may be 1.
    """
    n = np.full(len(claimed), clf.n_samples) if claimed.n_samples is None else claimed.n_samples
    may_be_1 = algorithm.certain or claimed.alpha == 0 or (clf.bound.startswith("randomized") and clf.rtol is None)
    # Room for rounding.
    most = 1.0 if may_be_1 else claimed.alpha ** (1 / np.maximum(n, 1)) * (1 + 2**-50)
    are_possible = (claimed.p_b >= 1 - most) & (claimed.p_a <= most)
    nearest = {name: np.clip(getattr(claimed, name), 0, 1) for name in ("p_a", "p_b")}
    return replace(claimed, **nearest, n_samples=n), are_possible


def _check_claims(certificates: Certificates, clf: Any, algorithm: Algorithm, n_inputs: int) -> None:
    """Raise a ValueError unless the certificates can be of this classifier and this number of inputs."""
    if n_inputs != len(certificates):
        raise ValueError(f"X must hold the {len(certificates)} inputs that were certified, got {n_inputs}.")
    strategy, mechanism = algorithm.strategy, algorithm.mechanism
    threat = strategy.threat_under(mechanism.noise, mechanism.features)
    if (strategy.norm, threat) != (certificates.norm, certificates.threat):
        raise ValueError(
            f"certificates are in l{certificates.norm:g} against {certificates.threat}, but clf has radius={strategy!r}"
            f", noise={clf.noise_!r} and costs={clf.costs!r}. Set the parameters that the certificates were made with."
        )
    if np.isnan(certificates.p_a).any():
        raise ValueError(
            "certificates must hold probabilities, but p_a is NaN, as in certificates from a table of radii. Use those "
            "that certify or Certificates.from_store returns."
        )
    labels = certificates.labels[_are_claims(certificates)]
    if unknown := labels[~np.isin(labels, clf.classes_)].tolist():
        raise ValueError(
            f"certificates hold the label {unknown[0]!r}, which is not among the classes {clf.classes_.tolist()!r}."
        )


def _p_value(contradicted: NDArray[np.bool_], inputs: NDArray[np.uint8], wrong: float) -> float:
    """Return the probability of at least this number of distinct inputs with a contradicted certificate."""
    distinct = np.unique(inputs, axis=0, return_inverse=True)[1].ravel()
    return float(binom.sf(len(np.unique(distinct[contradicted])) - 1, distinct.max() + 1, wrong))


def _p_values(duel: Duel, n_rivals: int, claimed: Certificates, by_margin: bool) -> FloatArray:
    """Return the probability, under each certificate, of votes that contradict it as much as these."""
    k_a, k_b, n = duel
    if by_margin:
        # The claim bounds the mean of (1 + [A] - [B])/2, whose values lie in [0, 1], for every rival B.
        mean, least = (1 + (k_a - k_b) / n) / 2, (1 + claimed.margin) / 2
        return np.minimum(n_rivals * np.exp(-n * _divergence(np.minimum(mean, least), least)), 1.0)
    for_a = binom.cdf(k_a, n, claimed.p_a)
    # P(a rival gets at least k_b votes), summed over the rivals.
    for_b = n_rivals * binom.sf(k_b - 1, n, claimed.p_b)
    return np.minimum(2 * np.minimum(for_a, for_b), 1.0)


def _unexplained(
    duel: Duel, n_rivals: int, claimed: Certificates, level: float, looks: int | None
) -> NDArray[np.bool_]:
    """Tell which claims and fresh votes are too unlikely together under any probabilities of the classes.

    ``looks`` is the number of checkpoints of a run with ``rtol``, whose claims are about the margin, and else None.
    """
    if claimed.alpha == 0 or claimed.n_samples is None or not claimed.n_samples.all():
        return np.zeros(len(claimed), dtype=bool)
    k_a, k_b, n = duel
    if looks is None:
        for_a = _likelihood(k_a, n, claimed.p_a, claimed.n_samples, claimed.alpha)
        for_b = n_rivals * _likelihood(n - k_b, n, 1 - claimed.p_b, claimed.n_samples, claimed.alpha)
        product = 2 * np.minimum(for_a, for_b)
    else:
        means = (1 + (k_a - k_b) / n) / 2, (1 + claimed.margin) / 2
        product = looks * n_rivals * _likelihood_of_means(*means, n, claimed.n_samples)
    # A product of two independent p-values is at most x with probability x (1 - ln x).
    product = np.clip(product, np.finfo(np.float64).tiny, 1)
    return np.asarray(product * (1 - np.log(product)) <= level / len(claimed))


def _likelihood(k: Any, n: Any, least: FloatArray, recorded: NDArray[np.int64], alpha: float) -> FloatArray:
    """Bound the probability of a claim of at least ``least`` and of at most ``k`` of ``n`` fresh votes.

    The claim needs a number of recorded votes that has a probability of alpha where the claim is just true. The
    two are independent.
    """
    below, above = _grid(least, np.minimum(n, recorded))
    needed = binom.isf(alpha, recorded, least)
    return np.asarray(np.max(binom.sf(needed - 1, recorded, above) * binom.cdf(k, n, below), axis=0))


def _likelihood_of_means(mean: Any, least: FloatArray, n: Any, recorded: NDArray[np.int64]) -> FloatArray:
    """Do the same for a claim that the mean of (1 + [A] - [B])/2 is at least ``least``, by Chernoff's bound [1]_.

    No bets win against a mean above that of the recorded votes, so the claim needs recorded votes of this mean. Fresh
    votes have a mean of ``mean``.
    """
    below, above = _grid(least, np.minimum(n, recorded))
    claim = recorded * _divergence(np.maximum(least, above), above)
    return np.asarray(np.exp(-np.min(claim + n * _divergence(np.minimum(mean, below), below), axis=0)))


def _grid(least: FloatArray, n: Any) -> tuple[FloatArray, FloatArray]:
    """Return neighbors on a grid of probabilities, fine around ``least``: each probability lies between two of them."""
    spread = np.sqrt(least * (1 - least) / n) + 1e-9
    near = least + np.linspace(-12, 12, 400)[:, None] * spread
    grid = np.sort(np.clip(np.concatenate([np.linspace(0, 1, 100)[:, None] + 0 * least, near]), 0, 1), axis=0)
    return grid[:-1], grid[1:]


def _divergence(q: FloatArray, p: FloatArray) -> FloatArray:
    """Return the Kullback-Leibler divergence between Bernoulli distributions."""
    return rel_entr(q, p) + rel_entr(1 - q, 1 - p)
