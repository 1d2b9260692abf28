"""`SmoothedClassifier`: the estimator that puts the steps in order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.utils.metadata_routing import UNUSED, MetadataRouter, MethodMapping, process_routing
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ._utils.checks import (
    check_count,
    check_labels,
    check_no_dates,
    check_not_negative,
    check_positive,
    check_radii,
    check_shape,
    explain_invalid,
    sorted_unique,
)
from ._utils.text import describe
from .certify.algorithm import Procedure
from .certify.binomial import check_statistics
from .certify.names import resolve, resolve_radius
from .certify.radius import GreedyRadius, RadiusStrategy, WorstPerturbations, worst_perturbations
from .models.adapt import check_base_model, make_voter
from .models.base import Voter, is_torch, takes_any_shape, unwrap
from .models.columns import Columns, NamedColumns
from .models.inference import TorchInference
from .models.portable import portable, restored
from .models.timeout import TimedVoter
from .noise.base import Noise
from .noise.box import Box
from .noise.mechanism import NoiseMechanism
from .noise.seeding import resolve_seed
from .results.certificates import Certificates, Decisions
from .results.votes import Origin, VoteCounts
from .runs.inputs import Inputs
from .runs.metadata import RunMetadata, to_spec
from .runs.run import Part, Run, certificates, from_votes, in_order
from .runs.store import Store
from .sampling.sampler import RuleMaker, Sampler, fingerprints
from .training.datasets import read_dataset


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
        (trained with the paper's recipe, see `smoothcert.training.make_net`), a skorch net with settings of its own, or
        a fitted one inside `sklearn.frozen.FrozenEstimator`, which is used as it is. One that is fitted on a DataFrame
        gets DataFrames with the same columns when it votes.
    noise : str or Noise, default="split"
        "split", "deterministic-split", "uniform", "uniform-mixture", "gaussian" or "laplace".
        The noise family; strings stand for its default parameters.
    radius : {"auto", "lipschitz", "box", "greedy"} or RadiusStrategy, default="auto"
        How margins become radii. "auto" is the tightest strategy that is valid for the noise: greedy, but for Laplace
        noise.
    training : {"augment", "stability", None} or Training, default="augment"
        How the base model is fitted: on noisy data, with the stability loss as well (torch models only), or on clean
        data.
    bounds : (lo, hi), dict, pandas Series or "minmax", default=(0.0, 1.0)
        The box that inputs live in, in raw units: scalars or one value per feature, in order or by column name, such as
        ``(X.min(), X.max())``; pairs by column name, ``{"age": (0, 120), ...}``; "minmax" takes each feature's range
        in the training data.
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
    timeout : float or None, default=None
        Seconds to wait for the base model's answer to one batch before a TimeoutError; None waits for ever. Not for
        torch models.
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
    feature_names_in_ : ndarray of str, shape (n_features,)
        Where X was a DataFrame, or the trained model knows them.
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

    #: ``fit`` hands weights on: where metadata are routed, the base model requests them.
    __metadata_request__fit: ClassVar = {"sample_weight": UNUSED}

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
        timeout: float | None = None,
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
        self.timeout = timeout
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
        estimator : torch.nn.Module, skorch net, fitted classifier or function
            Nothing is trained or copied. It should have met noise in its own training. A function takes a batch,
            float64 of shape (n, *shape), and returns labels, shape (n,), or scores or logits, shape (n, n_classes). It
            must be deterministic, and answer each row whatever else is in the batch: a service behind it as well.
        classes : array-like of shape (n_classes,)
            Labels: for torch models and functions in the order of the logits.
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

        Examples
        --------
        >>> def brightness(batch):
        ...     return batch.mean(axis=1) > 0.5
        >>> clf = SmoothedClassifier.from_pretrained(brightness, classes=[False, True], random_state=0)
        >>> print(clf.certify([[0.1, 0.2, 0.1]]).labels)
        [False]
        """
        frozen = estimator if isinstance(estimator, FrozenEstimator) else FrozenEstimator(estimator)
        check_base_model(frozen)
        classifier = cls(frozen, noise, **params)
        labels = np.asarray(classes)
        if labels.ndim != 1 or not len(labels) or len(sorted_unique("classes", labels)) != len(labels):
            raise ValueError(f"classes must be a list of distinct labels, got {classes!r}.")
        noise = classifier._new_noise()
        classifier._check_parameters(classifier.n_samples, noise, labels)
        columns = Columns.of_model(frozen)
        box = Box.from_bounds(classifier.bounds, names=columns.names if columns else None)
        classifier._settle(frozen, labels, box, noise, columns)
        for name in ("feature_names_in_", "n_features_in_") if columns else ():
            setattr(classifier, name, getattr(unwrap(frozen), name))
        return classifier

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, **fit_params: Any) -> Self:
        """Fit the base model, by default on noisy data.

        Parameters
        ----------
        X : array-like of shape (n_inputs, n_features), or (n_inputs, ...) for torch models, or torch Dataset
            Finite numbers inside the box. A Dataset holds pairs (input, label). Torch models are trained on it, so that
            its transforms run in each epoch anew, before the noise; other models are fitted on one pass over it.
        y : array-like of shape (n_inputs,), or None for a Dataset
            Labels of any type.
        sample_weight : array-like of shape (n_inputs,), optional
            Weights of the inputs in the loss.
        **fit_params
            Passed to the base model's ``fit``. Parameters with one entry per input are repeated along with the noisy
            copies.

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
        if sample_weight is not None:
            fit_params["sample_weight"] = sample_weight
        fit_params = self._requested(fit_params)
        X, y, dataset = read_dataset(X, y)
        columns = Columns.of(X)
        X, y = self._validate(X, y=y)
        classes = sorted_unique("y", y)
        check_classification_targets(y)
        box, noise = Box.from_bounds(self.bounds, X, columns.names if columns else None), self._new_noise()
        box.check(X, columns.names if columns else None)
        self._check_parameters(self.n_samples, noise, classes)
        mechanism = NoiseMechanism(box, noise, X.shape[1:])
        mechanism.points(X)
        if isinstance(self.estimator, FrozenEstimator):
            fitted = self.estimator
            columns = Columns.of_model(fitted, columns)
            classes = np.asarray(getattr(unwrap(fitted), "classes_", classes)) if not is_torch(fitted) else classes
        else:
            model = self.estimator
            if columns is not None and not is_torch(model):
                model = NamedColumns(model, columns)
            fitted = training.train(
                model,
                X,
                y,
                mechanism=mechanism,
                seed=resolve_seed(self.random_state),
                device=self.device,
                verbose=self.verbose,
                dataset=dataset,
                fit_params=fit_params,
            )
            fitted = fitted.estimator if isinstance(fitted, NamedColumns) else fitted
        self._settle(fitted, classes, box, noise, columns)
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
        inputs = self._open(X)
        procedure = self._procedure(inputs, self.n_samples, rtol=None)
        return self._count(self._run("counting votes", inputs, procedure))

    def certify(self, X: Any, *, votes: VoteCounts | None = None, store: Any = None, y: Any = None) -> Certificates:
        """Predict labels and certify radii (Algorithm 1): ``labels, radii = clf.certify(X)``.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.
        votes : VoteCounts, optional
            Votes that `count_votes` has drawn for the same X, with the same noise, box, model and (where it is fixed)
            ``random_state``. Nothing is drawn then, so ``n_selection`` and ``n_samples`` are those of the votes, and
            ``rtol`` has nothing to stop; ``radius``, ``scheme``, ``bound`` and ``alpha`` may differ.
        store : str or path-like, optional
            File in which the run is recorded, input by input. Inputs that are finished in it are not drawn again: a
            run that was stopped, however, goes on and ends with the same certificates. Where ``random_state`` is
            None, the store's seed is used. See `Certificates.from_store`.
        y : array-like of shape (n_inputs,), optional
            True labels: certified accuracy so far is shown and logged, and the store keeps them. They change nothing
            else.

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
        inputs = self._open(X)
        if votes is not None and store is not None:
            raise ValueError("votes are drawn already: a store has nothing to record. Give one of votes and store.")
        if votes is not None:
            self._check_votes(votes, inputs)
            # The fewest votes must suffice to certify anything; drawing errs the most often where there are most.
            procedure = self._procedure(inputs, votes.n_samples, rtol=None, seed=votes.origin.seed)
            procedure = replace(procedure, n_samples=int(votes.estimation.sum(axis=1).max()))
            make = certificates(procedure, self._mechanism(inputs.shape))
            return in_order([(part.index, make(part)) for part in from_votes(inputs, votes)])
        procedure = self._procedure(inputs, self.n_samples, rtol=self.rtol)
        rule = procedure.precision if procedure.stops else None
        run = self._run("certifying", inputs, procedure, rule, y=check_labels(y, len(inputs), self.classes_))
        if store is None:
            return run.collect(certificates(procedure, run.sampler.mechanism))
        with Store(store, self._record(run, procedure)) as opened:
            seed = int(opened.run.seed or 0)
            procedure = replace(procedure, seed=seed)
            run = replace(run, store=opened, sampler=replace(run.sampler, seed=seed))
            return run.collect(certificates(procedure, run.sampler.mechanism))

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
        the radius suffices, until that is hopeless, or until ``n_samples`` are drawn, which Clopper and Pearson's
        bounds then decide upon. What the votes of an input decide depends neither on other inputs nor on batches.
        ``bound`` is not used.
        """
        check_is_fitted(self, "estimator_")
        inputs = self._open(X)
        target = check_radii(radius, len(inputs))
        procedure = self._procedure(inputs, self.n_samples, rtol=self.rtol)
        run = self._run("deciding", inputs, procedure, procedure.test if procedure.can_stop else None)
        run = replace(run, target=target)
        by_radius = certificates(procedure, run.sampler.mechanism)

        def decisions(part: Part) -> Decisions:
            verdict = part.votes.verdict
            return Decisions(
                labels=self.classes_[part.votes.selection.argmax(axis=1)],
                robust=by_radius(part).radii >= target[part.index] if verdict is None else verdict,
                n_samples=part.votes.estimation.sum(axis=1),
                radius=target[part.index],
                alpha=0.0 if procedure.exact else self.alpha,
                norm=procedure.strategy.norm,
                threat=procedure.strategy.threat,
            )

        return run.collect(decisions)

    def worst_perturbations(self, X: Any, radius: Any) -> WorstPerturbations:
        """Return the greedy adversary's perturbations of some inputs within a distance (Theorem 2.8).

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.
        radius : float or array-like of shape (n_inputs,)
            Distance to spend, in units of the unit box.

        Returns
        -------
        perturbations : WorstPerturbations
            ``(reach, moves, perturbed)``. The largest reaches are filled first; of equal ones the first.

        Raises
        ------
        ValueError
            If the radius strategy is not greedy.
        """
        check_is_fitted(self, "estimator_")
        strategy = resolve_radius(self.radius, self.noise_)
        if not isinstance(strategy, GreedyRadius):
            raise ValueError(f'estimator must have radius="greedy", whose budget is drawn, got {strategy!r}.')
        inputs = self._open(X)
        checked = inputs.read(np.arange(len(inputs)))
        return worst_perturbations(strategy, self._mechanism(inputs.shape), checked, check_radii(radius, len(inputs)))

    def _open(self, X: Any) -> Inputs:
        """Return inputs that are validated: at once, or where they are not in memory as they are read."""
        warned = False

        def validate(part: Any) -> Any:
            nonlocal warned
            checked = self._validate(part)
            warned = warned or self.box_.warn_clipped(checked)
            return checked

        return Inputs(X, validate)

    def __getstate__(self) -> dict[str, Any]:
        return portable(super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(restored(state))

    def get_metadata_routing(self) -> MetadataRouter:
        """Return what metadata goes where: that of ``fit`` to the base model, ``sample_weight`` of ``score`` here.

        Returns
        -------
        router : MetadataRouter
        """
        callee = "partial_fit" if getattr(self.training, "stream", False) else "fit"
        mapping = MethodMapping().add(caller="fit", callee=callee)
        return MetadataRouter(owner=self).add_self_request(self).add(estimator=self.estimator, method_mapping=mapping)

    def _requested(self, fit_params: dict[str, Any]) -> dict[str, Any]:
        """Return the metadata of ``fit`` that the base model has requested; all of it where routing is not enabled."""
        if not get_config()["enable_metadata_routing"]:
            return fit_params
        routed = process_routing(self, "fit", **fit_params).estimator
        return dict(next((given for given in routed.values() if given), {}))

    def _validate(self, X: Any, **targets: Any) -> Any:
        """Check X, and y when fitting, and return arrays; torch models take inputs of any shape."""
        any_shape = takes_any_shape(self.estimator)
        check_no_dates(X)
        check_shape(X, None if targets else getattr(self, "feature_shape_", None), any_shape=any_shape)
        try:
            checked = validate_data(self, X, **targets, reset=bool(targets), allow_nd=any_shape)
            data = checked[0] if targets else checked
            if data.dtype.kind not in "biuf":
                raise ValueError(f"X must hold numbers, got dtype {data.dtype}.")
        except (TypeError, ValueError) as error:
            raise explain_invalid(X, error) from error
        return checked

    def _check_parameters(self, n_samples: Any, noise: Noise, classes: NDArray[Any]) -> RadiusStrategy:
        """Raise a ValueError if a parameter of certification is invalid, and return the radius strategy."""
        strategy = resolve_radius(self.radius, noise)
        check_count("n_selection", self.n_selection)
        if self.batch_size != "auto":
            check_count("batch_size", self.batch_size)
        if self.timeout is not None:
            check_positive("timeout", self.timeout)
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

    def _procedure(self, inputs: Inputs, n_samples: int, *, rtol: float | None, seed: int | None = None) -> Procedure:
        """Check the parameters of certification, and return what they say."""
        return Procedure(
            noise=self.noise_,
            strategy=self._check_parameters(n_samples, self.noise_, self.classes_),
            classes=self.classes_,
            n_features=int(np.prod(inputs.shape)),
            scheme=self.scheme,
            bound=self.bound,
            alpha=self.alpha,
            n_samples=n_samples,
            rtol=rtol,
            seed=self._call_seed() if seed is None else seed,
        )

    def _settle(self, fitted: Any, classes: NDArray[Any], box: Box, noise: Noise, columns: Columns | None) -> None:
        """Set what a fitted classifier consists of; nothing is set if the base model does not fit the classes."""
        make_voter(fitted, classes, self.device, self.inference, columns)
        self.estimator_ = fitted
        self.classes_ = classes
        self.box_ = box
        self.noise_ = noise
        self._columns = columns
        self._seed = resolve_seed(self.random_state)

    def _check_unchanged(self) -> None:
        """Raise a ValueError if a parameter that the fitted classifier depends on has changed."""
        changes = {
            "noise": (describe(resolve("noise", self.noise)), describe(self.noise_)),
            "bounds": (
                self.bounds if isinstance(self.bounds, str) else self._named_box().fingerprint(),
                self.box_.fingerprint(),
            ),
        }
        for name, (now, fitted) in changes.items():
            if now not in (fitted, "minmax"):
                raise ValueError(
                    f"{name} has changed to {getattr(self, name)!r} after fit. Call fit again, or for a model that is "
                    f"used as it is, SmoothedClassifier.from_pretrained."
                )

    def _named_box(self) -> Box:
        """Build the box anew, for the columns that fit has seen."""
        return Box.from_bounds(self.bounds, names=getattr(self, "feature_names_in_", None))

    def _call_seed(self) -> int:
        """Seed of one call; a RandomState has given one seed for all calls when fitting."""
        if self.noise_.n_outcomes is not None:
            return 0
        return self._seed if isinstance(self.random_state, np.random.RandomState) else resolve_seed(self.random_state)

    def _mechanism(self, shape: tuple[int, ...]) -> NoiseMechanism:
        """Box and noise for inputs of this shape."""
        self._check_unchanged()
        return NoiseMechanism(self.box_, self.noise_, shape)

    def _voter(self) -> Voter:
        voter = make_voter(self.estimator_, self.classes_, self.device, self.inference, self._columns)
        return voter if self.timeout is None else TimedVoter(voter, self.timeout)

    def _run(
        self, task: str, inputs: Inputs, procedure: Procedure | None, rule: RuleMaker | None = None, y: Any = None
    ) -> Run:
        """Bind what votes for the inputs depend on; without a procedure they only choose classes."""
        sampler = Sampler(
            voter=self._voter(),
            mechanism=self._mechanism(inputs.shape),
            seed=self._call_seed() if procedure is None else procedure.seed,
            n_selection=self.noise_.n_outcomes or check_count("n_selection", self.n_selection),
            n_samples=0 if procedure is None or procedure.exact else procedure.n_samples,
            rule=rule,
            batch_size=self.batch_size,
        )
        return Run(sampler=sampler, inputs=inputs, n_jobs=self.n_jobs, verbose=self.verbose, task=task, y=y)

    def _selection_votes(self, X: Any) -> NDArray[np.int64]:
        """Draw the votes that choose the class."""
        check_is_fitted(self, "estimator_")
        return self._count(self._run("predicting", self._open(X), None)).selection

    def _count(self, run: Run) -> VoteCounts:
        """Draw all votes of a run."""
        origin = self._origin(run.sampler)

        def counts(part: Part) -> VoteCounts:
            votes = part.votes
            return VoteCounts(
                selection=votes.selection, estimation=votes.estimation, inputs=votes.inputs, origin=origin
            )

        return run.collect(counts)

    def _origin(self, sampler: Sampler) -> Origin:
        return Origin(
            noise=describe(self.noise_),
            box=self.box_.fingerprint(),
            seed=sampler.seed,
            model=sampler.voter.fingerprint(),
            classes=repr(self.classes_.tolist()),
            shape=sampler.mechanism.shape,
        )

    def _check_votes(self, votes: VoteCounts, inputs: Inputs) -> None:
        """Raise a ValueError unless the votes were drawn for these inputs by a classifier like this one."""
        if not isinstance(votes, VoteCounts):
            raise ValueError(f"votes must be what count_votes returns, got a {type(votes).__name__}.")
        sampler = self._run("", inputs, None).sampler
        if self.random_state is None:
            sampler = replace(sampler, seed=votes.origin.seed)
        found = [fingerprints(sampler.mechanism, X) for _, X in inputs.chunks()]
        votes.check_same(self._origin(sampler), np.concatenate(found))

    def _record(self, run: Run, procedure: Procedure) -> RunMetadata:
        """Return what a store keeps about a run."""
        known_seed = self.random_state is not None or procedure.exact
        return RunMetadata.new(
            n_inputs=len(run.inputs),
            seed=procedure.seed if known_seed else None,
            model=run.sampler.voter.fingerprint(),
            noise=to_spec(self.noise_),
            box=self.box_,
            classes=self.classes_,
            shape=run.inputs.shape,
            parameters={
                "n_selection": run.sampler.n_selection,
                "n_samples": int(procedure.n_samples),
                "rtol": procedure.rtol if procedure.stops else None,
                "scheme": self.scheme,
                "bound": self.bound,
                "alpha": float(self.alpha),
                "radius": to_spec(procedure.strategy),
            },
        )
