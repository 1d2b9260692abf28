"""
Sets of digits that hold the right one, even under attack
=========================================================

Conformal prediction gives sets of labels that hold the true label for 90 % of new inputs, whatever the model is. Here
the promise also holds if somebody changes each image by an l1 distance of up to 1. That is one pixel from black to
white, or 16 pixels by one shade of gray.
"""

# %%
# The images have 8 x 8 pixels. Some 800 of them train the model, 500 calibrate the sets, and 500 test them.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from smoothcert import PredictionSetDisplay, SmoothedConformalClassifier, SplitNoise

X, y = load_digits(return_X_y=True)
X = X / 16
X_train, X_rest, y_train, y_rest = train_test_split(X, y, test_size=1000, stratify=y, random_state=0)
X_calib, X_test, y_calib, y_test = train_test_split(X_rest, y_rest, test_size=500, stratify=y_rest, random_state=0)

base = LogisticRegression(C=0.3, max_iter=200)
narrow, wide = (
    SmoothedConformalClassifier(base, SplitNoise(lam, levels=16), radius=0.0, n_samples=500, random_state=0).fit(
        X_train, y_train
    )
    for lam in (1.0, 6.0)
)

# %%
# The binarized method draws 500 noisy copies of each image. The one-sample method draws a single one, and pays for the
# adversary with its confidence level: it needs noise at least five times as wide as the radius.

fig, axes = plt.subplots(1, 2, figsize=(8.4, 4.0), layout="constrained")
data = {"X_calib": X_calib, "y_calib": y_calib, "radii": [0.0, 0.25, 0.5, 0.75, 1.0], "axes": axes}
displays = {}
for name, clf, method in (
    ("binarized, lam=1", narrow, "binarized"),
    ("binarized, lam=6", wide, "binarized"),
    ("one sample, lam=6", wide, "one-sample"),
):
    clf.set_params(method=method)
    displays[name] = PredictionSetDisplay.from_estimator(clf, X_test, y_test, name=name, **data)
plt.show()

# %%
# 90 % are promised under attack. Without an attack, the sets hold the true label more often.

for name, display in displays.items():
    for place in (2, 4):
        size, coverage = display.sizes[place], display.coverage[place]
        print(f"{name:17}  radius {display.radii[place]:3}  size {size:.2f}  coverage {coverage:.3f}")

# %%
# Images with the smallest and with the largest sets for radius 0.5.

sets = narrow.set_params(method="binarized", radius=0.5).conformalize(X_calib, y_calib).predict_set(X_test)
order = np.argsort(sets.sum(axis=1), kind="stable")
fig, axes = plt.subplots(2, 5, figsize=(7.0, 3.4), layout="constrained")
for ax, i in zip(axes.ravel(), [*order[:5], *order[-5:]], strict=True):
    ax.imshow(X_test[i].reshape(8, 8), cmap="gray")
    ax.set(xticks=[], yticks=[])
    ax.set_title("{" + ", ".join(map(str, narrow.classes_[sets[i]])) + "}", fontsize="small")
plt.show()
