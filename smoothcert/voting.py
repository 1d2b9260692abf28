"""The votes of a smoothed estimator: drawn, read from a store, or given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags, get_tags
from sklearn.utils.multiclass import check_classification_targets

from ._utils.checks import check_classes, check_path, sorted_unique
from .certify.algorithm import Algorithm
from .conventions import CheckedScore
from .estimator import SmoothedEstimator
from .models.base import Voter, unwrap
from .noise.mechanism import NoiseMechanism
from .results.votes import VoteCounts
from .runs.inputs import Inputs
from .runs.metadata import check_stored_labels, origin_of
from .runs.model_check import check_given, votes_of_run
from .runs.progress import Progress, followed
from .runs.run import Parts, sample_votes


@dataclass(eq=False, repr=False, kw_only=True)
class SmoothedVoting(CheckedScore, ClassifierMixin, SmoothedEstimator):
    """A smoothed classifier without its certificates: votes of its base model under noise; see `SmoothedClassifier`."""

    kind = "classifier"

    estimation: str = "auto"

    def __sklearn_tags__(self) -> Tags:
        """Return tags that say whether the base model takes several classes, and whether it scores poorly."""
        tags, model = super().__sklearn_tags__(), unwrap(self.estimator)
        base = get_tags(model).classifier_tags if hasattr(model, "__sklearn_tags__") else None
        if base is not None:
            own = tags.classifier_tags
            own.multi_class, own.poor_score = base.multi_class, base.poor_score
        return tags

    @classmethod
    def from_pretrained(cls, estimator: Any, classes: Any, noise: Any = None, **params: Any) -> Self:
        """Smooth a trained model as it is.

        Parameters
        ----------
        estimator : torch.nn.Module, skorch net, fitted classifier or function
            Nothing is trained or copied. It should have met noise in its own training. A function takes a batch,
            float64 of shape (n, *shape), and returns labels, shape (n,), or scores or logits, shape (n, n_classes). It
            and any service behind it must be deterministic, and answer each row independently of the rest of the batch.
        classes : array-like of shape (n_classes,)
            Labels: for torch models and functions in the order of the logits.
        noise : str or Noise, optional
            By default the noise and box of a `smoothcert.training.NoisyModule`, and "split" for other models.
        **params
            Other parameters of `SmoothedClassifier`.

        Returns
        -------
        classifier : SmoothedClassifier
            Fitted.

        Raises
        ------
        ValueError
            If ``bounds`` is "minmax" or ``categorical_features`` is set, since both need data, if ``classes`` holds
            duplicates, or if another parameter is invalid.

        Examples
        --------
        >>> from smoothcert import SmoothedClassifier
        >>> def brightness(batch):
        ...     return batch.mean(axis=1) > 0.5
        >>> clf = SmoothedClassifier.from_pretrained(brightness, classes=[False, True], random_state=0)
        >>> print(clf.certify([[0.1, 0.2, 0.1]]).labels)
        [False]
        """
        return cls._from_model(estimator, noise, check_classes(classes), params)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class that the selection votes, or exact probabilities, choose.

        These are the labels of `SmoothedClassifier.certify` if ``random_state`` is set. With ``random_state=None``,
        labels can differ for inputs where the vote is close. A prediction set need not hold the label of its input.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.

        Returns
        -------
        labels : ndarray of shape (n_inputs,)

        Raises
        ------
        NotFittedError, ValueError, TimeoutError, RuntimeError
            As in `SmoothedClassifier.certify`.
        """
        return self._predicted(X, lambda votes: self.classes_[votes.argmax(axis=1)])

    def _algorithm(
        self, mechanism: NoiseMechanism, classes: NDArray[Any], voter: Voter | None, **choices: Any
    ) -> Algorithm:
        """Check the parameters of certification, and return Algorithm 1 with them."""
        algorithm: Algorithm = self._with_parameters(Algorithm, mechanism, voter, classes=classes, **choices)
        return algorithm

    def _read_targets(self, y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        classes = sorted_unique("y", y)
        check_classification_targets(y)
        return y, classes

    def _predicted(self, X: Any, read: Callable[[Any], NDArray[Any]], *, all_selection: bool = False) -> NDArray[Any]:
        """Return what can be read from what chooses the class: selection votes, or exact probabilities."""
        inputs = self.open_inputs(X)
        source = self.algorithm(inputs.shape).source(self._call_seed(), n_samples=0, all_selection=all_selection)
        parts = sample_votes(source, inputs, self.n_jobs)
        progress = Progress(len(inputs), "predicting", self.verbose)
        return followed(parts, progress, lambda part: read(part.votes.selection))

    def _votes(self, inputs: Inputs, algorithm: Algorithm, rule: Any, **options: Any) -> Parts:
        """Return the votes of all inputs in parts; for options see `votes_of_run`."""
        source = algorithm.source(self._call_seed(), rule)
        fixed_seed = self.random_state is not None or algorithm.certain
        options["store"] = check_path("store", options.get("store"))
        if options["store"] is not None and options.get("y") is not None:
            check_stored_labels(options["y"])
        return votes_of_run(algorithm, source, inputs, self.n_jobs, fixed_seed=fixed_seed, **options)

    def _algorithm_of_votes(self, votes: Any, store: Any, inputs: Inputs, same_model: bool) -> Algorithm:
        """Return Algorithm 1 for votes that are given, which a classifier like this one must have drawn for X."""
        if store is not None:
            raise ValueError("votes are drawn already, so a store has nothing to record. Give one of the two.")
        if not isinstance(votes, VoteCounts):
            raise ValueError(
                f"votes must be what count_votes returns, got a {type(votes).__name__}. For counts from elsewhere, use "
                f"VoteCounts.from_counts."
            )
        # The fewest votes must suffice to certify anything.
        algorithm = self.algorithm(inputs.shape, n_samples=votes.n_samples, rtol=None)
        elsewhere = votes.origin.elsewhere
        seed = votes.origin.seed if self.random_state is None or elsewhere else self._call_seed()
        sampler = algorithm.sampler(seed)
        origin = origin_of(sampler.mechanism, self.classes_, seed=seed, model=sampler.voter.content())
        check_given(votes, sampler, inputs, origin, vouched=same_model, known=self._checked_votes.get(votes))
        self._checked_votes[votes] = origin.model
        return algorithm
