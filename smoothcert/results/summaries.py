"""Tables of certified accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._utils.checks import check_choice, on_host
from .metrics import AVERAGES, certified_accuracy_score, check_one_kind, named_alphas
from .tables import Summary

#: The names of these scores.
TITLES = {"micro": "certified accuracy", "macro": "certified balanced accuracy", None: "certified recall of each class"}


def summarize(certificates: Any, y: ArrayLike, radii: ArrayLike, *, average: str | None = "micro") -> Summary:
    """Return a table of certified accuracies of one or several classifiers.

    Parameters
    ----------
    certificates : Certificates or dict of str to Certificates
        Certificates of the same inputs, with the same norm and threat.
    y : array-like of shape (n_inputs,)
        True labels.
    radii : array-like of shape (n_radii,)
        In the unit box.
    average : {"micro", "macro", None}, default="micro"
        Accuracy, balanced accuracy, or a column for the recall of each class; see `certified_accuracy_score`.

    Returns
    -------
    summary : Summary

    Raises
    ------
    ValueError
        If the certificates have different norms or threats, and as `certified_accuracy_score`.

    See Also
    --------
    smoothcert.Certificates.summary : The table of one classifier.
    smoothcert.baselines : What the majority class, and the fixed columns alone, would give.

    References
    ----------
    .. [1] Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019, section
       4.

    Examples
    --------
    >>> import numpy as np
    >>> from smoothcert import Certificates
    >>> narrow, wide = (
    ...     Certificates(labels=np.array([0, 1]), radii=np.array(radii), abstained=np.zeros(2, dtype=bool),
    ...                  p_a=np.array([0.9, 0.9]), p_b=np.array([0.1, 0.1]), alpha=0.001, norm=1)
    ...     for radii in [[0.8, 0.9], [0.3, 1.6]])
    >>> summarize({"narrow": narrow, "wide": wide}, [0, 1], radii=[0.5, 1])
    l1 radius  narrow   wide
          0.5   1.000  0.500
            1   0.000  0.500
    2 inputs, 0 abstained, against every perturbation, alpha=0.001
    """
    check_choice("average", average, AVERAGES)
    alone = not isinstance(certificates, Mapping)
    named = {TITLES[average]: certificates} if alone else dict(certificates)
    first = check_one_kind(named)
    least = np.atleast_1d(np.asarray(radii, dtype=np.float64))
    abstained = sorted({int(one.abstained.sum()) for one in named.values()})
    note = (
        f"{len(first)} inputs, {' to '.join(map(str, abstained[:: max(1, len(abstained) - 1)]))} abstained, against "
        f"{first.threat}, alpha={named_alphas(named.values())}"
    )
    found = {str(name): certified_accuracy_score(y, one, least, average=average) for name, one in named.items()}
    if average is None:
        classes = np.unique(np.asarray(on_host(y, "y"))).tolist()
        prefixes = {name: "recall of " if alone else f"{name}: " for name in found}
        found = {f"{prefixes[name]}{c}": row for name in found for c, row in zip(classes, found[name], strict=True)}
    return Summary(
        least, found, f"l{first.norm:g}", note if average == "micro" or alone else f"{TITLES[average]}; {note}"
    )
