"""The plot of the votes behind single certificates."""

from __future__ import annotations

import textwrap
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from .._utils.optional import optional
from .._utils.pipelines import last_step
from .certificates import Certificates
from .plotting import COLORS, NEUTRAL, background
from .tables import rounded_down
from .votes import VoteCounts

#: The numbers of panels and of classes that fit on one figure.
MAX_INPUTS, MAX_CLASSES = 12, 10


@dataclass(eq=False, repr=False)
class VotesDisplay:
    """Votes and margins of single certificates, one panel for each input.

    Bars show the shares of the estimation votes. Two lines show the bounds: the probability of the predicted class is
    at least p_a, and that of every other class is at most p_b. The margin lies between them.

    Parameters
    ----------
    votes : VoteCounts
    certificates : Certificates
        The certificates for these votes.
    classes : array-like of shape (n_classes,)
    y : array-like of shape (n_inputs,), optional
        True labels.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (n_inputs,)
    figure_ : matplotlib Figure

    See Also
    --------
    SmoothedClassifier.count_votes : Draw votes.

    References
    ----------
    .. [1] Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019,
       Algorithm 1.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from smoothcert import SmoothedClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = SmoothedClassifier(LogisticRegression(), bounds=(0, 8), n_samples=1000, random_state=0).fit(X, y)
    >>> votes = clf.count_votes(X[:3])
    >>> display = VotesDisplay(votes, clf.certify(X[:3], votes=votes), classes=clf.classes_, y=y[:3])
    >>> display.votes.n_samples
    1000
    """

    votes: VoteCounts
    certificates: Certificates
    _: KW_ONLY
    classes: ArrayLike
    y: Any = None

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any = None, *, votes: VoteCounts | None = None, axes: Any = None, **kwargs: Any
    ) -> Self:
        """Draw votes for a few inputs, certify them and show both.

        Parameters
        ----------
        estimator : SmoothedClassifier, or Pipeline that ends in one
            The fitted classifier.
        X : array-like of shape (n_inputs, ...)
            At most 12 inputs.
        y : array-like of shape (n_inputs,), optional
            True labels.
        votes : VoteCounts, optional
            Votes for X; the classifier draws them by default.
        axes : array of matplotlib Axes, optional
        **kwargs
            Passed to `matplotlib.axes.Axes.barh`.

        Returns
        -------
        display : VotesDisplay
        """
        estimator, X = last_step(estimator, X)
        drawn = estimator.count_votes(X) if votes is None else votes
        certificates = estimator.certify(X, votes=drawn)
        return cls(drawn, certificates, classes=estimator.classes_, y=y).plot(axes, **kwargs)

    def plot(self, axes: Any = None, **kwargs: Any) -> Self:
        """Draw one panel for each input.

        Parameters
        ----------
        axes : array of matplotlib Axes, optional
            One axes for each input; a new figure by default.
        **kwargs
            Passed to `matplotlib.axes.Axes.barh`.

        Returns
        -------
        display : VotesDisplay

        Raises
        ------
        ValueError
            If there are more than 12 inputs, or the arguments differ in length.
        """
        pyplot = optional("matplotlib.pyplot", "plots")
        n = len(self.votes)
        if not 1 <= n <= MAX_INPUTS or len(self.certificates) != n or (self.y is not None and len(self.y) != n):
            raise ValueError(
                f"votes, certificates and y must be of the same 1 to {MAX_INPUTS} inputs, got {n}, "
                f"{len(self.certificates)} and {'no' if self.y is None else len(self.y)}. Slice them: votes[:6]."
            )
        if axes is None:
            height = 1.1 + 0.24 * min(len(np.asarray(self.classes)), MAX_CLASSES)
            size = (0.6 + 2.9 * min(n, 3), 0.6 + height * -(-n // 3))
            figure = pyplot.figure(figsize=size, layout="constrained")
            axes = [figure.add_subplot(-(-n // 3), min(n, 3), i + 1) for i in range(n)]
        self.axes_ = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
        self.figure_ = self.axes_[0].figure
        for i, ax in enumerate(self.axes_):
            self._plot_one(ax, i, kwargs)
        for ax in self.axes_[-min(n, 3) :]:
            ax.set_xlabel("share of votes")
        found = [ax.get_legend_handles_labels() for ax in self.axes_]
        entries = {label: handle for handles, labels in found for handle, label in zip(handles, labels, strict=True)}
        self.figure_.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3, frameon=False)
        return self

    def _plot_one(self, ax: Any, i: int, style: dict[str, Any]) -> None:
        counts, classes = self.votes.estimation[i], np.asarray(self.classes)
        shares = counts / max(counts.sum(), 1)
        label = self.certificates.labels[i]
        # The predicted class is always shown, beside the classes with most votes.
        ranked = np.argsort(-np.where(classes == label, 2.0, shares), kind="stable")[:MAX_CLASSES]
        shown = np.sort(ranked)
        strong, other, *_ = COLORS[background(ax)]
        bars = {"color": [strong if one == label else NEUTRAL for one in classes[shown]], "zorder": 2} | style
        ax.barh(np.arange(len(shown)), shares[shown], **bars)
        p_a, p_b = self.certificates.p_a[i], self.certificates.p_b[i]
        ax.axvline(p_a, color=strong, label="p_a, at least")
        ax.axvline(p_b, color=other, linestyle=(0, (4, 2)), label="p_b, at most")
        if p_a > p_b:
            ax.axvspan(p_b, p_a, color=other, alpha=0.2, label="margin", linewidth=0, zorder=0)
        ax.set(xlim=(0, 1.02), ylim=(len(shown) - 0.4, -0.6), yticks=range(len(shown)))
        ax.set_yticklabels([textwrap.shorten(str(one), 16, placeholder="...") for one in classes[shown]])
        truth = "" if self.y is None else " (right)" if self.y[i] == label else f" (it is {self.y[i]})"
        if self.certificates.abstained[i]:
            verdict = "abstained"
        else:
            radius = rounded_down(self.certificates.radii[i], 3)
            verdict = f"l{self.certificates.norm:g} radius {radius}, margin {rounded_down(p_a - p_b, 3)}"
        ax.set_title(f"predicted {label}{truth}\n{verdict}", fontsize="medium")
