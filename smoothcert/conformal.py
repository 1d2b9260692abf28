"""`SmoothedConformalClassifier`: sets of labels that hold the true one with a chosen probability, even under attack."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from ._utils.checks import check_labels
from ._utils.text import exact
from ._utils.warn import warn
from .certify.algorithm import Algorithm
from .certify.conformal_sets import SetRule, set_rule, way_back
from .certify.names import resolve
from .certify.reach import smallest_overlap
from .certify.strategy import RadiusStrategy, check_pays_by_overlap
from .models.adapt import check_has_probabilities
from .models.base import LabelTable
from .noise.mechanism import NoiseMechanism
from .runs.inputs import Inputs
from .runs.run import draw_inputs
from .sampling.sampler import fingerprints
from .sampling.scores import ScoreSampler, copies_before
from .voting import SmoothedVoting

#: Parameters of `set_rule`.
RULE = ("radius", "confidence_level", "method", "p", "alpha", "n_samples")


@dataclass(eq=False, repr=False, kw_only=True)
class SmoothedConformalClassifier(SmoothedVoting):
    """Robust conformal sets: for each input a set of labels that holds the true one, even if the input was changed.

    `fit` trains the base model under noise, `conformalize` finds a threshold on data that the model has not seen, and
    `predict_set` returns sets. If calibration inputs and later ones are exchangeable, the set of a later input holds
    its label with probability ``confidence_level`` or more, even if an adversary moved the input by up to ``radius``.
    The adversary may know everything except the seed of the noise.

    Parameters
    ----------
    estimator : estimator, torch.nn.Module or skorch.NeuralNetClassifier
        The base model, with ``predict_proba`` or logits of a torch module; otherwise as for `SmoothedClassifier`.
    noise : str or Noise, default="split"
        "split", "uniform" or "uniform-mixture": noise whose overlap is known.
    radius : float
        Distance by which each input may be moved, in the units and costs of `SmoothedClassifier`.
    confidence_level : float, default=0.9
        Probability that a set holds the true label. It is an average over inputs, not a promise for each of them.
    method : {"binarized", "one-sample"}, default="binarized"
        "binarized" counts how many of ``n_samples`` noisy copies of an input reach the threshold (after BinCP [1]_).
        "one-sample" draws a single one, and raises the conformal level by what the adversary can gain (RCP1 [2]_), so
        that ``radius`` must be small compared with the noise.
    conformity_score : {"lac", "aps"} or ConformityScore, default="lac"
        How badly a label fits: one minus its probability (`LACScore`), or adaptive (`APSScore`).
    strategy : {"auto", "lipschitz", "box", "greedy"} or RadiusStrategy, default="auto"
        What the adversary can reach; see `SmoothedClassifier`. "auto" is the tightest that the method allows. The
        one-sample method needs the same overlap for all inputs, and refuses "greedy".
    p : float or "auto", default="auto"
        With "binarized", the share of noisy copies for which the score of the label must reach the threshold. Where
        the input may have been moved, a smaller share is enough. "auto" places both around 1/2. Do not choose it by
        the calibration data.
    training, bounds, costs, categorical_features, hidden, missing
        As for `SmoothedClassifier`.
    alpha : float, default=0.01
        With "binarized", the largest part of ``1 - confidence_level`` that unlucky noisy copies may take.
    n_selection : int, default=256
        Largest number of votes of `predict`.
    n_samples : int, default=1000
        Number of noisy copies of each input with "binarized".
    estimation, batch_size, timeout, n_jobs, device, inference
        As for `SmoothedClassifier`. Sets are always sampled; probabilities that are known serve `predict` alone.
    random_state : int, RandomState or None, default=None
        None draws fresh entropy for every call, which an adversary cannot know.
    verbose : int, default=0
        If above 0, show progress.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The columns of sets.
    threshold_ : float
        Largest score of labels that fit.
    calibration_scores_ : ndarray of shape (n_calibration,)
        The scores of the calibration data, in increasing order.
    estimator_, noise_, box_, features_, n_features_in_, feature_names_in_, feature_shape_
        As for `SmoothedClassifier`.

    See Also
    --------
    SmoothedClassifier : Certificates for single inputs, without calibration data.
    set_coverage_score, mean_set_size_score : What sets are worth.
    PredictionSetDisplay : Both against the radius.

    References
    ----------
    .. [1] Zargarbashi and Bojchevski, "Robust Conformal Prediction with a Single Binary Certificate", ICLR 2025.
    .. [2] Zargarbashi, Akhondzadeh and Bojchevski, "One Sample Is Enough to Make Conformal Prediction Robust", 2025,
       arXiv:2506.16553.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from smoothcert import SplitNoise, set_coverage_score
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = SmoothedConformalClassifier(
    ...     LogisticRegression(max_iter=500), SplitNoise(2), radius=0.2, bounds="minmax", n_samples=200, random_state=0)
    >>> clf = clf.fit(X[::3], y[::3]).conformalize(X[1::3], y[1::3])
    >>> sets = clf.predict_set(X[2::3])
    >>> print(sets.shape, set_coverage_score(y[2::3], sets, clf.classes_) >= 0.9)
    (50, 3) True
    """

    radius: float = field()
    confidence_level: float = 0.9
    method: str = "binarized"
    conformity_score: Any = "lac"
    strategy: Any = "auto"
    p: float | str = "auto"
    alpha: float = 0.01
    n_samples: int = 1000

    def conformalize(self, X_calib: Any, y_calib: Any) -> Self:
        """Find the threshold for scores, on data that the model has not seen.

        Parameters
        ----------
        X_calib : array-like of shape (n_calibration, ...)
            Inputs that nobody has moved, exchangeable with later ones.
        y_calib : array-like of shape (n_calibration,)
            True labels.

        Returns
        -------
        self : SmoothedConformalClassifier

        Raises
        ------
        ValueError
            If there are too few inputs for the conformal level, a label is not among the classes, or X or a parameter
            is invalid.
        """
        inputs = self.open_inputs(X_calib)
        labels = check_labels(y_calib, len(inputs), self.classes_, "y_calib")
        unknown = ~np.isin(labels, self.classes_)
        if unknown.any():
            raise ValueError(
                f"y_calib must hold labels among the classes {self.classes_.tolist()!r}, got "
                f"{labels[unknown].tolist()[0]!r}. Fit on data that hold every class."
            )
        algorithm = self.algorithm(inputs.shape)
        digests = np.concatenate([fingerprints(algorithm.mechanism, X) for _, X in inputs.chunks()])
        target = np.column_stack([LabelTable(self.classes_).indices(labels, "y_calib"), copies_before(digests)])
        rule = self._rule(algorithm)
        scores = np.concatenate([found for _, _, found in self._draw(inputs, algorithm, rule, target=target)])
        self.threshold_, self.calibration_scores_ = rule.threshold(scores), np.sort(scores)
        self._calibrated = self._depends_on()
        return self

    def predict_set(self, X: Any) -> NDArray[np.bool_]:
        """Return the set of each input.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs, which may have been moved; clipped into the box.

        Returns
        -------
        sets : ndarray of bool, shape (n_inputs, n_classes)
            Whether the set holds each label; columns follow ``classes_``. A set may be empty.

        Raises
        ------
        NotFittedError
            If `fit` or `conformalize` was not called.
        ValueError
            If X is invalid, or a parameter or the base model has changed since.
        """
        check_is_fitted(self, "estimator_")
        if not hasattr(self, "threshold_"):
            raise NotFittedError("This classifier has no threshold yet: call conformalize(X_calib, y_calib) first.")
        for name, now in self._depends_on().items():
            if now != self._calibrated[name]:
                raise ValueError(f"{name} has changed to {now} since conformalize. Call it again.")
        inputs = self.open_inputs(X)
        algorithm = self.algorithm(inputs.shape)
        rule, sets, n_idle = self._rule(algorithm), np.empty((len(inputs), len(self.classes_)), dtype=bool), 0
        for index, part, counts in self._draw(inputs, algorithm, rule, threshold=self.threshold_):
            radius = np.full(len(part), float(self.radius))
            overlap = smallest_overlap(algorithm.strategy, algorithm.mechanism, part, radius)
            sets[index] = rule.holds(counts, overlap)
            n_idle += int(np.sum(rule.holds(np.zeros((len(part), 1), dtype=np.int64), overlap)))
        if n_idle:
            warn(
                f"{n_idle} of {len(sets)} sets hold all labels, even those that no noisy copy supports: p={self.p!r} "
                f"asks for {rule.rank} of {rule.n_samples} copies, and a move by radius={self.radius!r} may cost as "
                f'many. Use p="auto", a larger p, more n_samples or a smaller radius, or widen the noise, and '
                f"conformalize again."
            )
        return sets

    def _settle(self, *fitted: Any) -> None:
        """Forget the calibration of another model."""
        super()._settle(*fitted)
        for name in {"threshold_", "calibration_scores_", "_calibrated"} & {*vars(self)}:
            delattr(self, name)

    def _depends_on(self) -> dict[str, str]:
        """Return what the threshold depends on, as text."""
        chosen, voter = (*RULE, "conformity_score", "strategy"), self._voter()
        model = voter.content() + f" in steps of {voter.coarse_step:g}" * (voter.coarse_step > 0)
        return {name: exact(getattr(self, name)) for name in chosen} | {"estimator_": model}

    @property
    def _strategy(self) -> RadiusStrategy:
        """The radius strategy; by default the tightest that the method allows."""
        is_auto = isinstance(self.strategy, str) and self.strategy == "auto"
        found: RadiusStrategy = resolve("strategy", "box" if is_auto and self.method == "one-sample" else self.strategy)
        return found

    def _algorithm(self, mechanism: NoiseMechanism, classes: Any, voter: Any, **choices: Any) -> Algorithm:
        check_has_probabilities(self.estimator)
        check_pays_by_overlap(mechanism.noise)
        # Sets use no bound on the probabilities of votes, so that any number of samples is enough.
        algorithm = super()._algorithm(mechanism, classes, voter, **{"n_samples": 10_000} | choices)
        resolve("conformity_score", self.conformity_score).check()
        # Sets look at moved inputs, and ask where these have been.
        algorithm = replace(algorithm, strategy=way_back(algorithm.strategy))
        if voter is None:
            self._rule(algorithm)
        return algorithm

    def _rule(self, algorithm: Algorithm) -> SetRule:
        """Return how sets are calibrated and made, after a check of the parameters."""
        return set_rule(algorithm.strategy, algorithm.mechanism, **{name: getattr(self, name) for name in RULE})

    def _draw(self, inputs: Inputs, algorithm: Algorithm, rule: SetRule, target: Any = None, **options: Any) -> Any:
        """Yield the positions of some inputs, the inputs, and what `ScoreSampler.draw` finds for them."""
        score = resolve("conformity_score", self.conformity_score)
        shared = vars(algorithm.sampler(self._call_seed())) | {"n_samples": rule.n_samples}
        sampler = ScoreSampler(**shared, score=score, rank=rule.rank, **options)
        return draw_inputs(sampler, inputs, self.n_jobs, target=target, verbose=self.verbose)
