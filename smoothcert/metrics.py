"""Scores of certificates against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .certificates import Certificates


def certified_accuracy_score(y: ArrayLike, certificates: Certificates, radius: Any) -> Any:
    """Share of inputs whose label is right and certified at a radius; an abstention counts as wrong.

    Parameters
    ----------
    y : array-like of shape (n_inputs,)
        True labels.
    certificates : Certificates
    radius : float or array-like of float
        Radius or radii, in the unit box.

    Returns
    -------
    score : float, or ndarray of the shape of ``radius``

    Raises
    ------
    ValueError
        If ``y`` and ``certificates`` differ in length or in the kind of their labels, or are empty; if a radius is
        negative or NaN; if ``certificates`` are something else.

    Examples
    --------
    >>> import numpy as np
    >>> certificates = Certificates(
    ...     labels=np.array([0, 1, 1]), radii=np.array([2.0, 0.5, np.nan]), abstained=np.array([False, False, True]),
    ...     p_a=np.array([0.9, 0.6, 0.5]), p_b=np.array([0.1, 0.4, 0.5]), alpha=0.001, norm=1)
    >>> print(certified_accuracy_score([0, 1, 1], certificates, [0.0, 1.0]).round(2))
    [0.67 0.33]
    """
    if not isinstance(certificates, Certificates):
        raise ValueError(f"certificates must be what certify returns, got a {type(certificates).__name__}.")
    truth, least = np.asarray(y), np.asarray(radius, dtype=np.float64)
    if not (least >= 0).all():
        raise ValueError(f"radius must be 0 or above, got {radius!r}.")
    if truth.shape != (len(certificates),) or not len(certificates):
        raise ValueError(
            f"y must hold one label for each of the {len(certificates)} certificates (at least one), got shape "
            f"{truth.shape}."
        )
    labels, radii = certificates
    if (labels.dtype.kind in "OSU") != (truth.dtype.kind in "OSU"):
        raise ValueError(f"y must hold labels like those of certificates, {labels[0]!r}, got {truth[0]!r}.")
    score = ((labels == truth) & (radii >= least[..., None])).mean(axis=-1)
    return float(score) if score.ndim == 0 else score


def certified_accuracy_envelope(y: ArrayLike, certificates: Sequence[Certificates], radius: Any) -> Any:
    """Best certified accuracy of several classifiers at each radius (Figure 1 of the paper).

    Parameters
    ----------
    y : array-like of shape (n_inputs,)
        True labels.
    certificates : sequence of Certificates
        Of the same inputs, in the same norm.
    radius : float or array-like of float
        Radius or radii, in the unit box.

    Returns
    -------
    score : float, or ndarray of the shape of ``radius``

    Raises
    ------
    ValueError
        If the certificates are in several norms or against different perturbations, or there are none.

    Examples
    --------
    >>> import numpy as np
    >>> narrow, wide = (
    ...     Certificates(labels=np.array([0, label]), radii=np.array(radii), abstained=np.zeros(2, dtype=bool),
    ...                  p_a=np.array([0.9, 0.9]), p_b=np.array([0.1, 0.1]), alpha=0.001, norm=1)
    ...     for label, radii in [(1, [0.8, 0.8]), (0, [1.6, 1.6])])
    >>> print(certified_accuracy_envelope([0, 1], [narrow, wide], [0.5, 1.5]))
    [1.  0.5]
    """
    kinds = sorted({f"l{one.norm:g} against {one.threat}" for one in certificates})
    if len(kinds) != 1:
        raise ValueError(f"certificates must be of one kind, got {kinds}: their radii cannot be compared.")
    best = np.max([certified_accuracy_score(y, one, radius) for one in certificates], axis=0)
    return float(best) if best.ndim == 0 else best
