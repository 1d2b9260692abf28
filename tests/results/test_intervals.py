"""What results of regressors say."""

import numpy as np

from smoothcert.results import ToleranceRadii

from .examples import some_intervals


def test_what_results_of_regressors_say():
    lower, upper = np.array([[-np.inf, 0, 0], [0, 0, 0]]), np.array([[1, 1, np.inf], [1, 1, np.inf]])
    one = some_intervals(norm=2, quantile=0.25, alpha=0.01, threat="any pixel", lower=lower, upper=upper)
    words = "2 inputs, 1, 2, 0 bounded on both sides in l2 against any pixel, quantile=0.25, alpha=0.01"
    assert repr(one) == f"Intervals({words})"
    assert one.to_frame(y=[4.0, 8.0])["error"].tolist() == [1, 2]
    radii = np.array([2 / 3, 2 / 3, 9.0, np.nan])
    found = ToleranceRadii(
        predictions=radii, radii=radii, abstained=np.isnan(radii), tolerance=radii, quantile=0.25, alpha=0.01, norm=2
    )
    words = "4 inputs, 1 abstained, median radius 0.6666 in l2 against every perturbation, quantile=0.25, alpha=0.01"
    assert repr(found) == f"ToleranceRadii({words})"
    assert "1 abstained in l2 against" in repr(found[3:])
