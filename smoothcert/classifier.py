"""`SmoothedClassifier`: the estimator that puts the steps in order."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ._checks import check_count, check_not_negative, check_radii, check_shape, explain_invalid, sorted_unique
from .betting import looks
from .bounds import check_statistics, class_probabilities, exact_probabilities
from .box import Box
from .certificates import Certificates, Decisions, Origin, VoteCounts
from .channel import NoisyChannel
from .inference import TorchInference
from .noise import Noise
from .radius import RadiusStrategy, certified_radii, required_probability
from .resolve import describe, resolve, resolve_radius
from .sequential import RadiusPrecision, RadiusTest
from .stream import ESTIMATION, SELECTION, auxiliary, resolve_seed
from .voters import Voter, check_base_model, is_torch, make_voter, unwrap
from .voting import Sampler, fingerprints


class SmoothedClassifier(ClassifierMixin, BaseEstimator):
    """Randomized smoothing of any classifier, with certified l1 radii.

    The smoothed classifier H returns the class that the base model chooses most often under noise (equation 2 and
    section 2.4 of the paper). `predict` estimates it; `certify` adds a radius within which it provably does not
    change, with probability at least 1 - alpha for each input.

    Radii, ``lam`` and sigma are in units of the unit box: 1.0 is one feature moved across its whole range, whatever
    ``bounds`` are. Inputs outside the box are clipped into it, so that certificates hold against every perturbation.

    Parameters
    ----------
    estimator : estimator, torch.nn.Module or skorch.NeuralNetClassifier
        The base model: a scikit-learn classifier or pipeline, a torch module that returns one logit per class
        (trained with the paper's recipe, see `smoothcert.nets.make_net`), a skorch net with settings of its own, or a
        fitted one inside `sklearn.frozen.FrozenEstimator`, which is used as it is.
    noise : str or Noise, default="split"
        "split", "deterministic-split", "uniform", "uniform-mixture", "gaussian" or "laplace".
        The noise family; strings stand for its default parameters.
    radius : {"auto", "lipschitz", "box", "greedy"} or RadiusStrategy, default="auto"
        How margins become radii. "auto" is the tightest strategy that is valid for the noise: greedy, but for Laplace
        noise.
    training : {"augment", "stability", None} or Training, default="augment"
        How the base model is fitted: on noisy data, with the stability loss as well (torch models only), or on clean
        data.
    bounds : (lo, hi) or "minmax", default=(0.0, 1.0)
        The box that inputs live in, in raw units: scalars or one value per feature; "minmax" takes each feature's
        range in the training data.
    scheme : {"multiclass", "binary"}, default="multiclass"
        Whether the runner-up is bounded as well (Proposition 2.12), or all other classes count as one.
    bound : {"clopper-pearson", "randomized-clopper-pearson", "hoeffding"}, default="clopper-pearson"
        Confidence bound on probabilities. The randomised one spends its level in full, where the other two are wrong
        less often; for a share of unanimous votes as small as that level it claims certainty, an infinite radius for
        Gaussian and Laplace noise.
    alpha : float, default=0.001
        Probability, for each input, that its certificate is wrong.
    n_selection : int, default=256
        Votes that choose the class.
    n_samples : int, default=10_000
        Fresh votes that bound its probability; at most, where drawing may stop early.
    rtol : float or None, default=None
        None draws ``n_samples`` votes for every input. A number lets `certify` stop for an input once its radius is
        within this share of the largest that it could still reach, as far as its votes tell. The bound is then an
        anytime-valid one, by betting, on p_a - p_b, whatever ``bound`` says; p_b is 1 - p_a.
    batch_size : "auto" or int, default="auto"
        Rows of one call of the base model. It bounds the memory and does not change the noise.
    n_jobs : int or None, default=None
        Workers of `certify` and `predict`, through joblib.
    device : str, torch.device or None, default=None
        Where torch models run; they are moved there. None leaves them where they are.
    inference : TorchInference or None, default=None
        Reduced precision, memory layout and compilation of torch models when they vote.
    random_state : int, RandomState or None, default=None
        None draws fresh entropy for every call: certificates assume noise that an adversary cannot know when
        choosing the input. An int makes all results reproducible.
    verbose : int, default=0
        Above 0, show the progress of training torch models and of drawing votes.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    estimator_ : estimator or skorch net
        The fitted base model.
    noise_ : Noise
    box_ : Box
    n_features_in_ : int
    feature_shape_ : tuple of int
        Shape of one input.

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

    def __init__(
        self,
        estimator: Any,
        noise: Any = "split",
        *,
        radius: Any = "auto",
        training: Any = "augment",
        bounds: Any = (0.0, 1.0),
        scheme: str = "multiclass",
        bound: str = "clopper-pearson",
        alpha: float = 0.001,
        n_selection: int = 256,
        n_samples: int = 10_000,
        rtol: float | None = None,
        batch_size: int | str = "auto",
        n_jobs: int | None = None,
        device: Any = None,
        inference: TorchInference | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.noise = noise
        self.radius = radius
        self.training = training
        self.bounds = bounds
        self.scheme = scheme
        self.bound = bound
        self.alpha = alpha
        self.n_selection = n_selection
        self.n_samples = n_samples
        self.rtol = rtol
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.device = device
        self.inference = inference
        self.random_state = random_state
        self.verbose = verbose

    @classmethod
    def from_pretrained(cls, estimator: Any, classes: Any, noise: Any = "split", **params: Any) -> Self:
        """Smooth a trained model as it is.

        Parameters
        ----------
        estimator : torch.nn.Module, skorch net or fitted classifier
            Nothing is trained or copied. It should have met noise in its own training.
        classes : array-like of shape (n_classes,)
            Labels: for torch models in the order of the logits.
        noise : str or Noise, default="split"
        **params
            Other parameters of `SmoothedClassifier`.

        Returns
        -------
        classifier : SmoothedClassifier
            Fitted.

        Raises
        ------
        ValueError
            If ``bounds`` is "minmax", since there is no data to take it from, or ``classes`` holds duplicates.
        """
        check_base_model(estimator)
        frozen = estimator if isinstance(estimator, FrozenEstimator) else FrozenEstimator(estimator)
        classifier = cls(frozen, noise, **params)
        labels = np.asarray(classes)
        if labels.ndim != 1 or not len(labels) or len(sorted_unique("classes", labels)) != len(labels):
            raise ValueError(f"classes must be a list of distinct labels, got {classes!r}.")
        noise = classifier._new_noise()
        classifier._check_parameters(classifier.n_samples, noise, labels)
        classifier._settle(frozen, labels, Box.from_bounds(classifier.bounds), noise)
        return classifier

    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Fit the base model, by default on noisy data.

        Parameters
        ----------
        X : array-like of shape (n_inputs, n_features), or (n_inputs, ...) for torch models
            Finite numbers inside the box.
        y : array-like of shape (n_inputs,)
            Labels of any type.
        **fit_params
            Passed to the base model's ``fit``. What has one entry per input, such as ``sample_weight``, is repeated
            along with the noisy copies.

        Returns
        -------
        self : SmoothedClassifier

        Raises
        ------
        ValueError
            If a parameter is invalid, X lies outside the box, or the base model is no classifier.
        """
        check_base_model(self.estimator)
        training = resolve("training", self.training)
        training.check()
        X, y = self._validate(X, y=y)
        classes = sorted_unique("y", y)
        check_classification_targets(y)
        box, noise = Box.from_bounds(self.bounds, X), self._new_noise()
        box.check(X)
        self._check_parameters(self.n_samples, noise, classes)
        channel = NoisyChannel(box, noise, X.shape[1:])
        channel.points(X)
        if isinstance(self.estimator, FrozenEstimator):
            fitted = self.estimator
            classes = np.asarray(getattr(unwrap(fitted), "classes_", classes)) if not is_torch(fitted) else classes
        else:
            fitted = training.train(
                self.estimator,
                X,
                y,
                channel=channel,
                seed=resolve_seed(self.random_state),
                device=self.device,
                verbose=self.verbose,
                **fit_params,
            )
        self._settle(fitted, classes, box, noise)
        self.feature_shape_ = X.shape[1:]
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class that the selection votes choose.

        These are the labels of `certify`: always where ``random_state`` is set; with None, but for inputs on which
        fresh votes choose another class.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.

        Returns
        -------
        labels : ndarray of shape (n_inputs,)
        """
        votes = self._selection_votes(X)
        return self.classes_[votes.argmax(axis=1)]

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the frequencies of the selection votes.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.

        Returns
        -------
        frequencies : ndarray of shape (n_inputs, n_classes)
            Columns follow ``classes_``.
        """
        votes = self._selection_votes(X)
        return votes / votes.sum(axis=1, keepdims=True)

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
        ValueError
            If X or a parameter is invalid, or the base model answers with anything but one known class per row.
        """
        check_is_fitted(self, "estimator_")
        return self._draw(self._validate(X))

    def certify(self, X: Any, *, votes: VoteCounts | None = None) -> Certificates:
        """Predict labels and certify radii (Algorithm 1): ``labels, radii = clf.certify(X)``.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.
        votes : VoteCounts, optional
            Votes that `count_votes` has drawn for the same X, with the same noise, box, model and (where it is fixed)
            ``random_state``. Nothing is drawn then, so ``n_selection`` and ``n_samples`` are those of the votes, and
            ``rtol`` has nothing to stop; ``radius``, ``scheme``, ``bound`` and ``alpha`` may differ.

        Returns
        -------
        certificates : Certificates
            For each input that is not abstained on, with probability at least 1 - alpha over the sampling, the
            smoothed classifier returns the label on the whole l1 ball of the radius around the input.

        Raises
        ------
        ValueError
            If X or a parameter is invalid, the samples are too few to certify anything, the votes belong to something
            else, or the base model answers with anything but one known class per row.

        Notes
        -----
        The class comes from the selection votes alone and its probability from the estimation votes alone. Reading
        both off one draw would break the proof.
        """
        check_is_fitted(self, "estimator_")
        X = self._validate(X)
        if votes is None and self.rtol is not None and self._sequential:
            top, p_a, p_b, used = self._draw_until_precise(X)
        else:
            if votes is None:
                votes = self._draw(X)
            else:
                self._check_votes(votes, X)
            self._check_parameters(votes.n_samples, self.noise_, self.classes_)
            top, used = votes.selected, votes.estimation.sum(axis=1)
            p_a, p_b = self._probabilities(votes, top, X)

        strategy = resolve_radius(self.radius, self.noise_)
        # Where nothing was sampled there is nothing to be unsure of: even a tie has its winner.
        certified = (p_a > p_b) | self._exact
        radii = np.full(len(X), np.nan)
        if len(self.classes_) == 1:
            radii[:] = np.inf
        else:
            radii[certified] = certified_radii(strategy, self._channel(X), X[certified], p_a[certified], p_b[certified])
        return Certificates(
            labels=self.classes_[top],
            radii=radii,
            abstained=~certified,
            p_a=p_a,
            p_b=p_b,
            alpha=0.0 if self._exact else self.alpha,
            norm=strategy.norm,
            threat=strategy.threat,
            n_samples=used,
        )

    def certify_at(self, X: Any, radius: Any) -> Decisions:
        """Decide whether inputs are certified at a given radius, with as few votes as that takes.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.
        radius : float or array-like of shape (n_inputs,)
            At least 0, in units of the unit box and in the norm of the radius strategy.

        Returns
        -------
        decisions : Decisions
            For each input that is robust, with probability at least 1 - alpha over the sampling, the smoothed
            classifier returns the label on the whole l1 ball of this radius around the input.

        Raises
        ------
        ValueError
            If X, ``radius`` or a parameter is invalid, or the base model answers with anything but one known class per
            row.

        Notes
        -----
        A sequential test by betting (Ville 1939; Waudby-Smith and Ramdas 2024): votes are drawn until the evidence for
        the radius suffices, until that is hopeless, or until ``n_samples`` are drawn. What the votes of an input decide
        depends neither on other inputs nor on batches. ``bound`` is not used.
        """
        check_is_fitted(self, "estimator_")
        X = self._validate(X)
        target = check_radii(radius, len(X))
        strategy = self._check_parameters(self.n_samples, self.noise_, self.classes_)
        if self._sequential:
            sampler = self._sampler(X)
            selection = self._select(sampler)
            rule = RadiusTest(
                **self._rule(selection, X),
                looks=looks(self.n_samples),
                required=required_probability(strategy, sampler.channel, X, target),
            )
            counts = sampler.draw(ESTIMATION, self.n_samples, rule)
            labels, robust, used, alpha = self.classes_[rule.top], rule.robust(counts), counts.sum(axis=1), self.alpha
        else:
            known = self.certify(X)
            labels, robust, used, alpha = known.labels, known.radii >= target, known.n_samples, known.alpha
        return Decisions(
            labels=labels,
            robust=robust,
            n_samples=used,
            radius=target,
            alpha=alpha,
            norm=strategy.norm,
            threat=strategy.threat,
        )

    def _validate(self, X: Any, **targets: Any) -> Any:
        """Check X, and y when fitting, and return arrays; torch models take inputs of any shape."""
        any_shape = is_torch(self.estimator)
        check_shape(X, None if targets else getattr(self, "feature_shape_", None), any_shape=any_shape)
        try:
            checked = validate_data(self, X, **targets, reset=bool(targets), allow_nd=any_shape)
            data = checked[0] if targets else checked
            if data.dtype.kind not in "biuf":
                raise ValueError(f"X must hold numbers, got dtype {data.dtype}.")
        except (TypeError, ValueError) as error:
            raise explain_invalid(X, error) from error
        if not targets:
            self.box_.warn_clipped(checked)
        return checked

    def _check_parameters(self, n_samples: Any, noise: Noise, classes: NDArray[Any]) -> RadiusStrategy:
        """Raise a ValueError if a parameter of certification is invalid, and return the radius strategy."""
        strategy = resolve_radius(self.radius, noise)
        check_count("n_selection", self.n_selection)
        if self.batch_size != "auto":
            check_count("batch_size", self.batch_size)
        if self.rtol is not None and check_not_negative("rtol", self.rtol) >= 1:
            raise ValueError(f"rtol must lie below 1, got {self.rtol!r}.")
        if self.inference is not None:
            if not isinstance(self.inference, TorchInference):
                raise ValueError(f"inference must be a TorchInference or None, got {self.inference!r}.")
            self.inference.check()
        rule: dict[str, Any] = {"scheme": self.scheme, "bound": self.bound, "alpha": self.alpha}
        n_classes = 1 if noise.n_outcomes is not None else len(classes)
        check_statistics(check_count("n_samples", n_samples), n_classes, **rule)
        return strategy

    def _new_noise(self) -> Noise:
        """Resolve and check the noise."""
        noise: Noise = resolve("noise", self.noise)
        noise.check()
        return noise

    def _probabilities(
        self, votes: VoteCounts, top: NDArray[np.intp], X: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bound the probabilities of the selected class and of its strongest rival."""
        if self.noise_.n_outcomes is not None:
            return exact_probabilities(votes.estimation, top)
        return class_probabilities(
            votes.estimation,
            top,
            scheme=self.scheme,
            bound=self.bound,
            alpha=self._level(int(votes.estimation.sum(axis=1).max()), X),
            uniforms=auxiliary(votes.origin.seed, votes.inputs) if self.bound.startswith("randomized") else None,
        )

    def _draw_until_precise(
        self, X: NDArray[Any]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Draw votes until radii are precise to ``rtol``; return classes, bounds and the votes used."""
        strategy = self._check_parameters(self.n_samples, self.noise_, self.classes_)
        sampler = self._sampler(X)
        rule = RadiusPrecision(
            **self._rule(self._select(sampler), X),
            looks=looks(self.n_samples, growth=1.15, step=64),
            rtol=float(self.rtol or 0.0),
            strategy=strategy,
            channel=sampler.channel,
            X=X,
        )
        counts = sampler.draw(ESTIMATION, self.n_samples, rule)
        return rule.top, *rule.probabilities(counts), counts.sum(axis=1)

    def _rule(self, selection: NDArray[np.int64], X: NDArray[Any]) -> dict[str, Any]:
        """Return what stopping rules share."""
        return {
            "selection": selection,
            "top": selection.argmax(axis=1),
            "rivals_apart": self.scheme == "multiclass" and len(self.classes_) > 2 and self.noise_.by_margin,
            "alpha": self._level(self.n_samples, X),
        }

    @property
    def _exact(self) -> bool:
        """Whether all outcomes of the noise are evaluated."""
        return self.noise_.n_outcomes is not None

    @property
    def _sequential(self) -> bool:
        """Whether there is anything to stop early: votes that are sampled, for one of several classes."""
        return not self._exact and len(self.classes_) > 1

    def _level(self, n_samples: int, X: NDArray[Any]) -> float:
        """Return what the noise's drawing leaves of alpha."""
        drawing = self.noise_.draw_error * n_samples * X[0].size
        if drawing >= self.alpha:
            raise ValueError(
                f"alpha={self.alpha:g} must exceed {drawing:.3g}, the error of drawing {n_samples} votes of "
                f"{self.noise_} for {X[0].size} features."
            )
        return float(self.alpha - drawing)

    def _settle(self, fitted: Any, classes: NDArray[Any], box: Box, noise: Noise) -> None:
        """Set what a fitted classifier consists of; nothing is set if the base model does not fit the classes."""
        make_voter(fitted, classes, self.device, self.inference)
        self.estimator_ = fitted
        self.classes_ = classes
        self.box_ = box
        self.noise_ = noise
        self._seed = resolve_seed(self.random_state)

    def _check_unchanged(self) -> None:
        """Raise a ValueError if a parameter that the fitted classifier depends on has changed."""
        changes = {
            "noise": (describe(resolve("noise", self.noise)), describe(self.noise_)),
            "bounds": (
                self.bounds if isinstance(self.bounds, str) else Box.from_bounds(self.bounds).fingerprint(),
                self.box_.fingerprint(),
            ),
        }
        for name, (now, fitted) in changes.items():
            if now not in (fitted, "minmax"):
                raise ValueError(
                    f"{name} has changed to {getattr(self, name)!r} after fit. Call fit again, or for a model that is "
                    f"used as it is, SmoothedClassifier.from_pretrained."
                )

    def _call_seed(self) -> int:
        """Seed of one call; a RandomState has given one seed for all calls when fitting."""
        if self.noise_.n_outcomes is not None:
            return 0
        return self._seed if isinstance(self.random_state, np.random.RandomState) else resolve_seed(self.random_state)

    def _channel(self, X: NDArray[Any]) -> NoisyChannel:
        """Box and noise for inputs of the shape of these."""
        self._check_unchanged()
        return NoisyChannel(self.box_, self.noise_, X.shape[1:])

    def _voter(self) -> Voter:
        return make_voter(self.estimator_, self.classes_, self.device, self.inference)

    def _sampler(self, X: NDArray[Any]) -> Sampler:
        """Bind what votes for validated inputs depend on; None as ``random_state`` draws fresh entropy here."""
        return Sampler(
            voter=self._voter(),
            channel=self._channel(X),
            X=X,
            seed=self._call_seed(),
            batch_size=self.batch_size,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )

    def _select(self, sampler: Sampler) -> NDArray[np.int64]:
        """Draw the votes that choose the class."""
        return sampler.draw(SELECTION, self.noise_.n_outcomes or check_count("n_selection", self.n_selection))

    def _selection_votes(self, X: Any) -> NDArray[np.int64]:
        check_is_fitted(self, "estimator_")
        return self._select(self._sampler(self._validate(X)))

    def _draw(self, X: NDArray[Any]) -> VoteCounts:
        """Draw the votes of both stages for validated inputs."""
        self._check_parameters(self.n_samples, self.noise_, self.classes_)
        sampler = self._sampler(X)
        selection = self._select(sampler)
        return VoteCounts(
            selection=selection,
            estimation=selection if self._exact else sampler.draw(ESTIMATION, self.n_samples),
            inputs=sampler.inputs,
            origin=self._origin(sampler.voter, sampler.seed, X.shape[1:]),
        )

    def _origin(self, voter: Voter, seed: int, shape: tuple[int, ...]) -> Origin:
        return Origin(
            noise=describe(self.noise_),
            box=self.box_.fingerprint(),
            seed=seed,
            model=voter.fingerprint(),
            classes=repr(self.classes_.tolist()),
            shape=shape,
        )

    def _check_votes(self, votes: VoteCounts, X: NDArray[Any]) -> None:
        """Raise a ValueError unless the votes were drawn for X by a classifier like this one."""
        if not isinstance(votes, VoteCounts):
            raise ValueError(f"votes must be what count_votes returns, got a {type(votes).__name__}.")
        seed = votes.origin.seed if self.random_state is None else self._call_seed()
        votes.check_same(self._origin(self._voter(), seed, X.shape[1:]), fingerprints(self._channel(X), X))
