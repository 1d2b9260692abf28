"""Scores of certificates against true labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._utils.checks import (
    check_choice,
    check_labels,
    check_numbers,
    check_positive,
    check_thresholds,
    on_host,
    sorted_unique,
)
from .._utils.warn import warn
from .records import TableRecords

if TYPE_CHECKING:
    from .certificates import Certificates

FloatArray = NDArray[np.float64]

#: How scores of classes become one: the share of all inputs, the mean over classes, or one score for each class.
AVERAGES = ("micro", "macro", None)

#: The numbers of inputs, and of inputs of a class, from which a class that is never predicted is no accident.
MANY, MANY_OF_CLASS = 50, 10


def certified_accuracy_score(
    y: ArrayLike,
    certificates: Certificates,
    radius: Any,
    *,
    average: str | None = "micro",
    sample_weight: ArrayLike | None = None,
) -> Any:
    """Return the share of inputs whose label is right and certified at a radius; abstentions count as wrong.

    Parameters
    ----------
    y : array-like of shape (n_inputs,)
        True labels, read by position.
    certificates : Certificates
    radius : float or array-like of float
        Radius or radii, in the unit box.
    average : {"micro", "macro", None}, default="micro"
        "micro" is the share among all inputs. None returns the share among the inputs of each class, its certified
        recall. "macro" is the mean of these, the certified balanced accuracy: a constant classifier has 1 over the
        number of classes.
    sample_weight : array-like of shape (n_inputs,), optional
        The weight of each input; equal by default.

    Returns
    -------
    score : float, or ndarray of the shape of ``radius``
        With ``average=None``, an ndarray whose first axis are the classes in ``y``, in order.

    Raises
    ------
    ValueError
        If ``y`` and ``certificates`` differ in length or in the type of their labels, or are empty; if a radius is
        negative or NaN; if ``certificates`` are not `Certificates`; if weights are negative or all 0, for one class or
        for all; if ``average`` is unknown.

    See Also
    --------
    certified_accuracy_curve : The accuracy at all radii.
    smoothcert.Certificates.summary : The accuracy as a table.

    References
    ----------
    .. [1] Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019, section
       4.

    Examples
    --------
    >>> import numpy as np
    >>> from smoothcert import Certificates
    >>> certificates = Certificates(
    ...     labels=np.array([0, 1, 1]), radii=np.array([2.0, 0.5, np.nan]), abstained=np.array([False, False, True]),
    ...     p_a=np.array([0.9, 0.6, 0.5]), p_b=np.array([0.1, 0.4, 0.5]), alpha=0.001, norm=1)
    >>> print(certified_accuracy_score([0, 1, 1], certificates, [0.0, 1.0]).round(2))
    [0.67 0.33]
    >>> print(certified_accuracy_score([0, 1, 1], certificates, 1.0, average=None))
    [1. 0.]
    """
    check_choice("average", average, AVERAGES)
    radii, weight = _right_radii(y, certificates, sample_weight)
    least = check_thresholds(radius)
    if average == "micro":
        score = _share(radii, weight, least)
    else:
        score = np.stack([_share(radii[rows], weight[rows], least) for rows in rows_of_classes(y, weight)])
        score = score if average is None else score.mean(axis=0)
    return float(score) if score.ndim == 0 else score


def rows_of_classes(y: ArrayLike, weight: FloatArray) -> list[NDArray[np.bool_]]:
    """Return the inputs of each class, or raise a ValueError if a class has no weight."""
    truth = np.asarray(on_host(y, "y"))
    rows = {label: truth == label for label in sorted_unique("y", truth).tolist()}
    for label, inputs in rows.items():
        if not weight[inputs].any():
            raise ValueError(f"sample_weight must be above 0 for an input of each class, but is 0 for class {label!r}.")
    return list(rows.values())


def _share(radii: FloatArray, weight: FloatArray, least: FloatArray) -> FloatArray:
    """Return the share of the weight that has at least some radii, of the shape of ``least``."""
    # In order of decreasing radius the weights add up to the curve: memory does not grow with inputs times radii.
    order = np.argsort(-radii, kind="stable")
    reached = np.concatenate([[0.0], np.cumsum(weight[order])])
    return np.asarray(reached[np.searchsorted(-radii[order], -least, side="right")] / reached[-1])


def certified_accuracy_curve(
    y: ArrayLike, certificates: Certificates, *, average: str = "micro", sample_weight: ArrayLike | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return the certified accuracy at every radius, as the points at which the curve jumps.

    Parameters
    ----------
    y : array-like of shape (n_inputs,)
        True labels.
    certificates : Certificates
    average : {"micro", "macro"}, default="micro"
        See `certified_accuracy_score`.
    sample_weight : array-like of shape (n_inputs,), optional
        The weight of each input; equal by default.

    Returns
    -------
    radii : ndarray of shape (n_steps,)
        0, followed by the distinct radii of right and certified inputs in increasing order; the last may be +inf.
    accuracy : ndarray of shape (n_steps,)
        ``accuracy[i]`` is the certified accuracy at ``radii[i]`` and at all radii between ``radii[i - 1]`` and
        ``radii[i]``. It is 0 beyond the last radius. matplotlib draws the curve with
        ``step(radii, accuracy, where="pre")``.

    Raises
    ------
    ValueError
        As `certified_accuracy_score`.

    See Also
    --------
    smoothcert.CertifiedAccuracyDisplay : The curve as a plot.

    References
    ----------
    .. [1] Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019, section
       4.

    Examples
    --------
    >>> import numpy as np
    >>> from smoothcert import Certificates
    >>> certificates = Certificates(
    ...     labels=np.array([0, 1, 1]), radii=np.array([2.0, 0.5, np.nan]), abstained=np.array([False, False, True]),
    ...     p_a=np.array([0.9, 0.6, 0.5]), p_b=np.array([0.1, 0.4, 0.5]), alpha=0.001, norm=1)
    >>> radii, accuracy = certified_accuracy_curve([0, 1, 1], certificates)
    >>> print(radii, accuracy.round(2))
    [0.  0.5 2. ] [0.67 0.67 0.33]
    """
    right, _ = _right_radii(y, certificates, sample_weight)
    radii = np.unique(np.append(right[right > 0], 0.0))
    check_choice("average", average, AVERAGES[:2])
    return radii, certified_accuracy_score(y, certificates, radii, average=average, sample_weight=sample_weight)


def average_certified_radius(
    y: ArrayLike, certificates: Certificates, *, max_radius: float | None = None, sample_weight: ArrayLike | None = None
) -> float:
    """Return the mean certified radius, the area under the certified accuracy curve.

    Wrong labels and abstentions count as radius 0.

    Parameters
    ----------
    y : array-like of shape (n_inputs,)
        True labels.
    certificates : Certificates
    max_radius : float, optional
        Larger radii count as this one. Without it, one input that is certified against everything makes the mean
        infinite. For l1, the number of features is a natural choice: no point of the unit box is farther away.
    sample_weight : array-like of shape (n_inputs,), optional
        The weight of each input; equal by default.

    Returns
    -------
    radius : float
        In the unit box; +inf if a correct input has an infinite radius and there is no ``max_radius``.

    Raises
    ------
    ValueError
        As `certified_accuracy_score`, or if ``max_radius`` is not above 0.

    See Also
    --------
    certified_accuracy_curve : The curve, which says more.

    Notes
    -----
    This number is easily misread. Radii grow steeply as votes become unanimous, so easy inputs dominate the mean. A
    classifier can win by giving up on hard inputs, and more votes raise the mean without any change of the model [1]_.
    A constant classifier, which is right only on the inputs of its class, has the largest possible radii. Report the
    curve, and this number only beside it.

    References
    ----------
    .. [1] Sun, Mao, Mueller and Vechev, "Average Certified Radius is a Poor Metric for Randomized Smoothing", 2024,
       arXiv:2410.06895.

    Examples
    --------
    >>> import numpy as np
    >>> from smoothcert import Certificates
    >>> certificates = Certificates(
    ...     labels=np.array([0, 1, 1]), radii=np.array([np.inf, 0.5, np.nan]), abstained=np.array([False, False, True]),
    ...     p_a=np.array([0.9, 0.6, 0.5]), p_b=np.array([0.1, 0.4, 0.5]), alpha=0.001, norm=1)
    >>> average_certified_radius([0, 1, 1], certificates)
    inf
    >>> average_certified_radius([0, 1, 1], certificates, max_radius=4)
    1.5
    """
    cap = np.inf if max_radius is None else check_positive("max_radius", max_radius)
    radii, weight = _right_radii(y, certificates, sample_weight)
    counted = weight > 0
    radii, weight = np.clip(radii[counted], 0.0, cap), weight[counted]
    return float(np.sum(radii * weight) / np.sum(weight))


def certified_accuracy_envelope(
    y: ArrayLike, certificates: Sequence[Certificates], radius: Any, *, sample_weight: ArrayLike | None = None
) -> Any:
    """Return the best certified accuracy of several classifiers at each radius.

    Parameters
    ----------
    y : array-like of shape (n_inputs,)
        True labels.
    certificates : sequence of Certificates
        Certificates of the same inputs, with the same norm and threat.
    radius : float or array-like of float
        Radius or radii, in the unit box.
    sample_weight : array-like of shape (n_inputs,), optional
        The weight of each input; equal by default.

    Returns
    -------
    score : float, or ndarray of the shape of ``radius``

    Raises
    ------
    ValueError
        If the certificates have different norms or threats, or there are none.

    See Also
    --------
    certified_accuracy_score : The accuracy of one classifier.

    References
    ----------
    .. [1] Voracek and Hein, "Improving l1-Certified Robustness via Randomized Smoothing by Leveraging Box
       Constraints", ICML 2023, Figure 1.

    Examples
    --------
    >>> import numpy as np
    >>> from smoothcert import Certificates
    >>> narrow, wide = (
    ...     Certificates(labels=np.array([0, label]), radii=np.array(radii), abstained=np.zeros(2, dtype=bool),
    ...                  p_a=np.array([0.9, 0.9]), p_b=np.array([0.1, 0.1]), alpha=0.001, norm=1)
    ...     for label, radii in [(1, [0.8, 0.8]), (0, [1.6, 1.6])])
    >>> print(certified_accuracy_envelope([0, 1], [narrow, wide], [0.5, 1.5]))
    [1.  0.5]
    """
    check_one_kind(dict(enumerate(certificates)))
    scores = [certified_accuracy_score(y, one, radius, sample_weight=sample_weight) for one in certificates]
    best = np.max(scores, axis=0)
    return float(best) if best.ndim == 0 else best


def warn_useless(labels: NDArray[Any], y: NDArray[Any]) -> None:
    """Warn if predicted labels are never some class that is frequent enough, or no better than the majority class.

    No better means that neither the accuracy nor the balanced accuracy exceeds that of the majority class.
    """
    classes, place, counts = np.unique(y, return_inverse=True, return_counts=True)
    if len(y) < MANY or len(classes) < 2:
        return
    right = labels == y
    recall = np.bincount(place, weights=right) / counts
    never = classes[(counts >= MANY_OF_CLASS) & ~np.isin(classes, labels)]
    found = []
    if len(never):
        shares = ", ".join(f"{label!r} ({(y == label).sum()} of {len(y)})" for label in never.tolist())
        found.append(f"never predicts some labels of y, {shares}")
    if right.mean() <= counts.max() / len(y) and recall.mean() <= 1 / len(classes):
        found.append(f"is no better than always predicting {classes.tolist()[counts.argmax()]!r}")
    if found:
        warn(
            f"The smoothed classifier {' and '.join(found)}: large radii say little then. Narrow the noise (a smaller "
            f"lam, or larger costs), weight the classes in the base model, or tune its threshold there, as "
            f"TunedThresholdClassifierCV does."
        )


def check_truth(y: ArrayLike, labels: NDArray[Any]) -> NDArray[Any]:
    """Return the true labels as an array, or raise a ValueError unless they can be compared with predicted ones."""
    if not len(labels):
        raise ValueError("certificates must hold at least one input, got none.")
    truth: NDArray[Any] = check_labels(y, len(labels), labels)
    return truth


def check_sample_weight(sample_weight: ArrayLike | None, n_inputs: int) -> FloatArray:
    """Return one weight for each input, or raise a ValueError if one is negative or not finite, or all are 0."""
    if sample_weight is None:
        return np.ones(n_inputs)
    weight: FloatArray = check_numbers("sample_weight", sample_weight, n_inputs)
    if (weight < 0).any() or not weight.any():
        raise ValueError(f"sample_weight must hold numbers of at least 0, and one above 0, got {sample_weight!r}.")
    return weight


def _right_radii(
    y: ArrayLike, certificates: Certificates, sample_weight: ArrayLike | None
) -> tuple[FloatArray, FloatArray]:
    """Return the radius of each input, or -1 if the label is wrong or not certified, and the weights."""
    labels, radii = _checked("certificates", certificates)
    right = (check_truth(y, labels) == labels) & (radii >= 0)
    return np.where(right, radii, -1.0), check_sample_weight(sample_weight, len(labels))


def check_one_kind(certificates: dict[Any, Any]) -> Certificates:
    """Return the first of several certificates, or raise a ValueError if their radii cannot be compared."""
    for name, one in certificates.items():
        _checked(f"certificates[{name!r}]", one)
    kinds = sorted({f"l{one.norm:g} against {one.threat}" for one in certificates.values()})
    if len(kinds) != 1:
        raise ValueError(
            f"certificates must be of one kind, got {kinds}: their radii cannot be compared. Give those of one kind, "
            f"or certify all with the same levels, norm and costs."
        )
    return next(iter(certificates.values()))


def named_alphas(certificates: Iterable[Certificates]) -> str:
    """Return the different levels of some certificates as text."""
    return " or ".join(f"{alpha:g}" for alpha in sorted({one.alpha for one in certificates}))


def _checked(name: str, thing: Any) -> Any:
    """Return certificates, or raise a ValueError if this is something else."""
    if not (isinstance(thing, TableRecords) and hasattr(thing, "p_a")):
        remedy = "Use clf.certify(X)."
        if hasattr(thing, "robust"):
            remedy += " Decisions at a radius have the accuracy ((labels == y) & robust).mean()."
        raise ValueError(f"{name} must be the Certificates that certify returns, got {type(thing).__name__}. {remedy}")
    return thing
