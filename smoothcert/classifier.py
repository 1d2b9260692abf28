"""`SmoothedClassifier`: the steps of Algorithm 1 in their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._utils.checks import check_labels, check_not_negative, check_radii, check_same_radii
from .certify.algorithm import Algorithm
from .certify.reach import WorstPerturbations, worst_perturbations
from .results.certificates import Certificates
from .results.decisions import Decisions
from .results.metrics import warn_useless
from .results.votes import VoteCounts
from .runs.metadata import origin_of
from .runs.progress import Progress, followed
from .runs.run import Part, given_votes, sample_votes
from .voting import SmoothedVoting


@dataclass(eq=False, repr=False, kw_only=True)
class SmoothedClassifier(SmoothedVoting):
    """Randomized smoothing of any classifier, with certified l1 radii.

    The smoothed classifier H returns the class that the base model chooses most often under noise (equation 2 and
    section 2.4 of the paper). `predict` estimates it; `certify` adds a radius within which it provably does not
    change, with probability at least 1 - alpha for each input.

    Radii, ``lam`` and sigma are in units of the unit box: 1.0 is one feature moved across its whole range, whatever
    ``bounds`` are. Inputs outside the box are clipped into it, so that certificates hold against every perturbation.

    Parameters
    ----------
    estimator : estimator, torch.nn.Module or skorch.NeuralNetClassifier
        The base model: a scikit-learn classifier or pipeline; a torch module that returns one logit per class
        (trained with the paper's recipe, see `smoothcert.training.make_net`), a skorch net with settings of its own, or
        a fitted one inside `sklearn.frozen.FrozenEstimator`, which is used as it is. One that is fitted on a DataFrame
        gets DataFrames with the same columns when it votes.
    noise : str or Noise, default="split"
        "split", "deterministic-split", "uniform", "uniform-mixture", "gaussian" or "laplace".
        The noise family; strings stand for its default parameters.
    radius : {"auto", "lipschitz", "box", "greedy"} or RadiusStrategy, default="auto"
        How margins become radii. "auto" is the tightest strategy that is valid for the noise: Lipschitz for Laplace
        and deterministic noise, greedy for the others.
    training : {"augment", "stability", None} or Training, default="augment"
        How the base model is fitted: on noisy data, with the stability loss as well (torch models only), or on clean
        data.
    bounds : (lo, hi), dict, pandas Series or "minmax", default=(0.0, 1.0)
        The box that inputs live in, in raw units: scalars or one value per feature, in order or by column name, such as
        ``(X.min(), X.max())``; pairs by column name, ``{"age": (0, 120), ...}``; "minmax" takes each feature's range
        in the training data.
    costs : float, "fixed", array-like, dict or pandas Series, default=1.0
        What the adversary pays for moving a feature across its whole range, or for changing a category. Radii sum what
        is paid: the cost times the share of the range that a feature moves. A feature of cost 2 gets half the noise. A
        feature that is "fixed", or of cost inf, cannot change: it gets no noise and needs no bounds. One number, one
        per feature (arrays broadcast to the shape of inputs), or by column name; columns that are left out cost 1.
        Uniform, splitting, mixture and Gaussian noise have certificates for costs.
    categorical_features : None, "from_dtype", or array-like of column names, positions or booleans, default=None
        Columns of categories. The adversary changes a category wholly, and pays its cost. "from_dtype" takes the
        columns of a DataFrame that hold strings, objects, booleans or categories by their type.
    hidden : {"auto", "mask", "uniform"}, default="auto"
        What hides a category under noise: a mask, which is one category more, or a category drawn at random. "auto" is
        the mask if the base model accepts it, and "uniform" for torch models and models that are fitted already. Where
        there is a mask, the base model sees a boolean column as 0, 1 and 2.
    missing : {"error", "category"}, default="error"
        Whether missing values in columns of categories are an error, or one category more in columns that have some.
    scheme : {"multiclass", "binary"}, default="multiclass"
        Whether the runner-up is bounded as well (Proposition 2.12), or all other classes count as one.
    bound : {"clopper-pearson", "randomized-clopper-pearson", "hoeffding"}, default="clopper-pearson"
        Confidence bound on probabilities. The randomized bound spends its level in full; the other two are wrong less
        often than they may be. With a probability as small as its level, the randomized bound claims certainty for a
        unanimous vote, which is an infinite radius for Gaussian and Laplace noise.
    alpha : float, default=0.001
        Probability, for each input, that its certificate is wrong.
    n_selection : int, default=256
        Largest number of votes that choose the class. Drawing stops after 16, 32, 64, ... votes where the lead is
        decisive.
    n_samples : int, default=10_000
        Number of fresh votes that bound the probability of the class. It is a maximum if drawing may stop early.
    estimation : {"auto", "sample", "exact"}, default="auto"
        Whether the probabilities of the base model are computed, as is possible for decision trees, and for boosted
        trees of depth 1 or with few thresholds, under uniform and splitting noise and mixtures; see
        `smoothcert.sampling.exact.ExactVotes`. Certificates then hold with certainty, alpha is 0, and nothing is drawn.
        "auto" computes them where it can and samples elsewhere, "sample" always samples, and "exact" raises an error
        that says why it cannot compute them.
    rtol : float or None, default=None
        None draws ``n_samples`` votes for every input. With a number, `certify` stops for an input once its radius is
        within this share of the largest radius that more votes are likely to give. The bound is then an anytime-valid
        one on p_a - p_b, by betting; ``bound`` is not used, and p_b is 1 - p_a. Under Gaussian and Laplace noise all
        rivals count as one then, whatever ``scheme`` says.
    batch_size : "auto" or int, default="auto"
        Number of rows in one call of the base model. It bounds the memory and does not change the noise.
    timeout : float or None, default=None
        Seconds to wait for the base model's answer to one batch before a TimeoutError. None waits forever. It is not
        for torch models.
    n_jobs : int or None, default=None
        Number of workers that draw votes, through joblib.
    device : str, torch.device or None, default=None
        Device on which a torch model runs; the model is moved there. None leaves it where it is.
    inference : TorchInference or None, default=None
        Reduced precision, memory layout and compilation of torch models when they vote, and what their output means.
    random_state : int, RandomState or None, default=None
        None draws fresh entropy for every call. Certificates assume that an adversary does not know the noise when
        choosing the input. An int makes all results reproducible.
    verbose : int, default=0
        If above 0, show the progress of training torch models and of drawing votes.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    estimator_ : estimator or skorch net
        The fitted base model.
    noise_ : Noise
    box_ : Box
    features_ : Features
        Costs of the features, and which of them are categories.
    n_features_in_ : int
    feature_names_in_ : ndarray of str, shape (n_features,)
        Where X was a DataFrame, or the trained model knows them.
    feature_shape_ : tuple of int
        Shape of one input.

    See Also
    --------
    recertify : Certificates from votes, without a model.
    certified_accuracy_score : Compare certificates with true labels.
    smoothcert.pipeline.make_pipeline : A pipeline that certifies.

    References
    ----------
    .. [1] Voracek and Hein, "Improving l1-Certified Robustness via Randomized Smoothing by Leveraging Box Constraints",
       ICML 2023.
    .. [2] Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019,
       Algorithm 1.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> base = make_pipeline(StandardScaler(), LogisticRegression())
    >>> clf = SmoothedClassifier(base, bounds="minmax", n_samples=1000, random_state=0).fit(X[::2], y[::2])
    >>> labels, radii = clf.certify(X[1::2])
    >>> print((labels == y[1::2]).mean().round(1), (radii >= 0.5).mean().round(1))
    0.9 0.7
    """

    scheme: str = "multiclass"
    bound: str = "clopper-pearson"
    rtol: float | None = None

    def _algorithm(self, *about: Any, **choices: Any) -> Algorithm:
        # Checked even if votes are given, which leave it unused.
        if self.rtol is not None and check_not_negative("rtol", self.rtol) >= 1:
            raise ValueError(f"rtol must lie below 1, got {self.rtol!r}.")
        return super()._algorithm(*about, **choices)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the frequencies of the selection votes, all ``n_selection`` of them, or exact probabilities.

        The class of the largest is that of `predict`, except for rare inputs on which the lead is small: `predict`
        stops drawing once the lead is decisive. On all data measured, this was wrong for less than 1 input in 10,000.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.

        Returns
        -------
        frequencies : ndarray of shape (n_inputs, n_classes)
            Columns follow ``classes_``.

        Raises
        ------
        NotFittedError, ValueError, TimeoutError, RuntimeError
            As in `certify`.
        """
        return self._predicted(X, lambda votes: votes / votes.sum(axis=1, keepdims=True), all_selection=True)

    def certify(
        self,
        X: Any,
        *,
        votes: VoteCounts | None = None,
        store: Any = None,
        y: Any = None,
        same_model: bool = False,
        shard: tuple[int, int] | None = None,
        on_error: str = "raise",
    ) -> Certificates:
        """Predict labels and certify radii (Algorithm 1): ``labels, radii = clf.certify(X)``.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.
        votes : VoteCounts, optional
            Votes that `count_votes` has drawn for the same X, with the same noise, box, model and (if it is set)
            ``random_state``. Nothing is drawn, so ``n_selection`` and ``n_samples`` are those of the votes, and
            ``rtol`` has no effect. ``radius``, ``scheme``, ``bound`` and ``alpha`` may differ. Votes from elsewhere
            (`VoteCounts.from_counts`) cannot be checked, which a warning says.
        store : str or path-like, optional
            File that records the run, input by input. Inputs that are finished in it are not drawn again, so that a
            run that was stopped can be resumed and ends with the same certificates. With ``random_state=None``, the
            store's seed is used. See `Certificates.from_store`.
        y : array-like of shape (n_inputs,), optional
            True labels, read by position. They are used to show and log the certified accuracy so far, and to warn of
            a classifier that never predicts some class or is no better than the majority class. The store keeps them;
            they change no certificate.
        same_model : bool, default=False
            Vouch that ``votes``, or those in the store, are this model's. The selection votes of some inputs are
            always drawn again and compared, and so is the model's content where it is well defined: its parameters or
            fitted arrays. If only one of the two differs, that is an error, which this turns into a warning.
        shard : tuple of int, optional
            ``(i, n)`` certifies only the i-th of n consecutive parts of X, ``(1, n)`` to ``(n, n)``, on one of several
            machines. ``random_state`` must be set, the same for all parts. `merge_stores` joins their stores, and
            `Certificates.concatenate` their certificates.
        on_error : {"raise", "skip"}, default="raise"
            Whether an input that is invalid, or on which the base model fails, ends the run. "skip" finishes the
            others, and marks it in ``certificates.failed``. A store keeps the reason.

        Returns
        -------
        certificates : Certificates
            For each input that is not abstained on, with probability at least 1 - alpha over the sampling, the
            smoothed classifier returns the label on the whole l1 ball of the radius around the input.

        Raises
        ------
        ValueError
            If X or a parameter is invalid, the samples are too few to certify anything, the votes or the store belong
            to something else, or the base model answers with anything but one known class per row.
        NotFittedError, TimeoutError, RuntimeError
            If the classifier is not fitted, the base model does not answer in time, or workers keep dying.

        Notes
        -----
        The class comes from the selection votes alone and its probability from the estimation votes alone. Reading
        both off one draw would break the proof.

        After the first task of a run that will take more than ten minutes, the logger "smoothcert" says at level INFO
        how many seconds it will take, and how many it would take with ``rtol`` or `certify_at`.
        """
        inputs = self._open_run(X, shard, on_error)
        y = check_labels(y, len(inputs), self.classes_)
        if votes is None:
            algorithm, skip = self.algorithm(inputs.shape), on_error == "skip"
            rule = algorithm.precision_rule()
            if algorithm.stops:
                algorithm.warn_joined_rivals()
            parts = self._votes(inputs, algorithm, rule, store=store, y=y, vouched=same_model, skip=skip)
        else:
            algorithm = self._algorithm_of_votes(votes, store, inputs, same_model)
            parts = given_votes(votes, inputs)

        def certificates(part: Part) -> Certificates:
            return algorithm.failed(len(part.X), part.votes) if part.failed else algorithm.certify(part.votes, part.X)

        n_inputs = len(inputs.positions)
        progress = Progress(n_inputs, "certifying", self.verbose, algorithm=algorithm, n_jobs=self.n_jobs)
        found = followed(parts, progress, certificates, y)
        if y is not None:
            judged = ~np.asarray(found.failed, dtype=bool)
            warn_useless(found.labels[judged], y[inputs.positions][judged])
        return found

    def certify_at(
        self,
        X: Any,
        radius: Any,
        *,
        store: Any = None,
        y: Any = None,
        same_model: bool = False,
        shard: tuple[int, int] | None = None,
        on_error: str = "raise",
    ) -> Decisions:
        """Decide whether inputs are certified at a given radius, with as few votes as that takes.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.
        radius : float or array-like of shape (n_inputs,), (1, n_radii) or (n_inputs, n_radii)
            At least 0, in units of the unit box and in the norm of the radius strategy. Two dimensions are several
            radii for each input, ``[[0.5, 1.0, 2.0]]`` for instance, on the same votes.
        store, y, same_model, shard, on_error
            As in `certify`. A store takes radii that are the same for all inputs; see `Decisions.from_store`.

        Returns
        -------
        decisions : Decisions
            For each input, with probability at least 1 - alpha over the sampling, the smoothed classifier returns the
            label on the whole ball around the input of every radius that is decided as robust.

        Raises
        ------
        ValueError
            If X, ``radius`` or a parameter is invalid, the store belongs to something else, or the base model answers
            with anything but one known class per row.
        NotFittedError, TimeoutError, RuntimeError
            As in `certify`.

        Notes
        -----
        This is a sequential test by betting (Ville 1939; Waudby-Smith and Ramdas 2024). Votes are drawn until the
        evidence for every radius suffices, until more votes are unlikely to change the decision, or until ``n_samples``
        votes are drawn. In the last case Clopper-Pearson bounds decide. The decision about an input depends neither on
        other inputs nor on batches. ``bound`` is not used. Under Gaussian and Laplace noise all rivals count as one,
        whatever ``scheme`` says, and a warning says so. One alpha covers all radii of one call. Each further call
        spends alpha anew, even with the same ``random_state`` and a larger ``n_samples``.
        """
        inputs = self._open_run(X, shard, on_error)
        radii, y = check_radii(radius, len(inputs), several=True), check_labels(y, len(inputs), self.classes_)
        algorithm, skip = self.algorithm(inputs.shape), on_error == "skip"
        algorithm.warn_joined_rivals()
        at = None if store is None else check_same_radii(radius, radii)
        recording = {"store": store, "y": y, "vouched": same_model, "decided_at": at}
        parts = self._votes(inputs, algorithm, algorithm.radius_rule(), **recording, skip=skip, target=radii)

        def decided(part: Part) -> Decisions:
            at = radii[part.index]
            failed = part.failed
            return algorithm.failed_decisions(at, part.votes) if failed else algorithm.decisions(part.votes, part.X, at)

        decisions = followed(parts, Progress(len(inputs.positions), "deciding", self.verbose), decided)
        if not decisions.robust.any() and on_error == "raise":
            algorithm.warn_out_of_reach(inputs.chunks(), radii)
        return decisions

    def count_votes(self, X: Any) -> VoteCounts:
        """Draw the votes of both stages, from which `certify` makes certificates as often as asked.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.

        Returns
        -------
        votes : VoteCounts

        Raises
        ------
        NotFittedError, ValueError, TimeoutError, RuntimeError
            As in `certify`.
        """
        inputs = self.open_inputs(X)
        sampler = self.algorithm(inputs.shape).sampler(self._call_seed())
        model, parts = sampler.voter.content(), sample_votes(sampler, inputs, self.n_jobs)
        origin = origin_of(sampler.mechanism, self.classes_, seed=sampler.seed, model=model)

        def counts(part: Part) -> VoteCounts:
            return VoteCounts(part.votes.selection, part.votes.estimation, part.votes.inputs, origin)

        votes = followed(parts, Progress(len(inputs), "counting votes", self.verbose), counts)
        self._checked_votes[votes] = votes.origin.model
        return votes

    def worst_perturbations(self, X: Any, radius: Any) -> WorstPerturbations:
        """Return the greedy adversary's perturbations of some inputs within a distance (Theorem 2.8).

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.
        radius : float or array-like of shape (n_inputs,)
            Distance to spend, in units of the unit box, times costs.

        Returns
        -------
        perturbations : WorstPerturbations
            ``(reach, moves, perturbed)``; ``perturbed`` is a table like X. The largest reaches are filled first, and
            of equal reaches the first. Those categories change that make the perturbation most expensive.

        Raises
        ------
        ValueError
            If the radius strategy is not greedy.
        """
        inputs = self.open_inputs(X)
        algorithm, distance = self.algorithm(inputs.shape), check_radii(radius, len(inputs))
        raw = inputs.read(np.arange(len(inputs)))
        found = worst_perturbations(algorithm.strategy, algorithm.mechanism, raw, distance)
        return found._replace(perturbed=self.to_table(found.perturbed, X))
