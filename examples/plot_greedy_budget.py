"""
Where the greedy adversary's budget goes
========================================

In the box, no pixel can move farther than to black or white. The cost of a move is convex: one large move lowers the
overlap more than many small moves of the same total distance. So the worst perturbation fills the largest reaches
first (Theorem 2.8). Pixels that are black or white have the largest reach, and gray ones come later.
"""

# %%
# The digit has 8 x 8 pixels from 0 to 16, and the noise is splitting noise. The adversary moves as many pixels as the
# radius allows. Many pixels are black, with equal reach. The picture shows the first of them; others would do as well.

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import train_test_split

from smoothcert import GreedyBudgetDisplay, GreedyRadius, SmoothedClassifier, SplitNoise

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=100, stratify=y, random_state=0)
clf = SmoothedClassifier(
    LinearDiscriminantAnalysis(), SplitNoise(lam=2), bounds=(0, 16), n_samples=5000, random_state=0
)
clf.fit(X_train, y_train)

certificates = clf.certify(X_test)
best = certificates.radii.argsort()[(~certificates.abstained).sum() - 1]
GreedyBudgetDisplay.from_estimator(clf, X_test[best], certificate=certificates[[best]], image_shape=(8, 8))
plt.show()

# %%
# If the adversary can change each pixel by at most a quarter of its range, more pixels must move. Each unit of distance
# then costs less, so the budget lasts longer and the radius grows.

clf.set_params(radius=GreedyRadius(max_change=0.25))
GreedyBudgetDisplay.from_estimator(clf, X_test[best], image_shape=(8, 8))
plt.show()
