"""
Looking at single decisions
===========================

Why is one input certified and another not? :class:`~smoothcert.VotesDisplay` shows the votes of the base model under
noise, and the bounds that they prove: the predicted class has probability at least p_a, and every other class has
probability at most p_b.
"""

# %%
# Select six digits, from the smallest radius to the largest.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import train_test_split

from smoothcert import SmoothedClassifier, SplitNoise, VotesDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=100, stratify=y, random_state=0)
clf = SmoothedClassifier(
    LinearDiscriminantAnalysis(), SplitNoise(lam=1), bounds=(0, 16), n_samples=2000, random_state=0
)
clf.fit(X_train, y_train)

votes = clf.count_votes(X_test)
certificates = clf.certify(X_test, votes=votes)
order = np.argsort(np.where(certificates.abstained, -1, certificates.radii), kind="stable")
rows = order[[0, 2, 20, 50, 80, -1]]

VotesDisplay.from_estimator(clf, X_test[rows], y_test[rows], votes=votes[rows])
plt.show()

# %%
# ``to_frame`` returns the same as a table, sorted by radius. It needs pandas.

print(certificates[rows].to_frame().round(3).to_string())
