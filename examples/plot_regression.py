"""
Certified intervals of a regression
===================================

A forest predicts how far diabetes has progressed a year later, from ten measurements. How far can the prediction move
if some measurements are wrong? :class:`~smoothcert.SmoothedRegressor` answers with an interval that holds for every
change up to a given size.
"""

# %%
# Each measurement gets noise, and the smoothed prediction is the median of what the forest then says. Radii are shares
# of the ranges of measurements: 0.5 is half the range of one of them, or a tenth of the range of five.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import train_test_split

from smoothcert import IntervalDisplay, SmoothedRegressor, SplitNoise

X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=100, random_state=0)
forest = RandomForestRegressor(50, min_samples_leaf=20, max_features=0.3, random_state=0)
reg = SmoothedRegressor(forest, SplitNoise(lam=0.7), bounds="minmax", n_selection=1000, n_samples=2000, random_state=0)
reg.fit(X_train, y_train)
X_test = X_test.clip(X_train.min(), X_train.max(), axis=1)
plain = forest.fit(X_train, y_train).score(X_test, y_test)
print(f"R2 of the forest {plain:.2f}, smoothed {reg.score(X_test, y_test):.2f}")

# %%
# Each band holds the smoothed prediction for every change of the measurements up to the radius. Dots are true values.

rows = [27, 2, 78]
patients = X_test.iloc[rows].set_axis(["patient 1", "patient 2", "patient 3"])
IntervalDisplay.from_estimator(reg, patients, y_test.iloc[rows], radius=0.6)
plt.show()

# %%
# ``certify_within`` asks the other way around: how large a change can the prediction withstand, before it may move by
# 30 points?

found = reg.certify_within(X_test, 30)
print(found)
print(found[:5].to_frame(y=y_test[:5]).round(2).to_string())

# %%
# The intervals of all patients, at several radii on the same votes.

intervals = reg.certify(X_test, [[0.0, 0.2, 0.4, 0.6]])
for radius, width in zip(intervals.radius[0], np.median(intervals.upper - intervals.lower, axis=0), strict=True):
    print(f"radius {radius:<4g}  median width {width:.0f}")
