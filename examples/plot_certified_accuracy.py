"""
Certified accuracy of several noises
====================================

This example draws one certified accuracy curve for each noise, on the table ``breast_cancer``. A curve shows the share
of test inputs that are classified correctly *and* provably keep their label within an l1 radius. Wide noise certifies
larger radii and costs accuracy at small ones. So the curves cross, and the best noise depends on the radius that you
need.
"""

# %%
# Radii are in units of the box. ``bounds="minmax"`` takes the range of each feature in the training data. A radius of 1
# is one feature moved across its whole range, whatever its unit.

import matplotlib.pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from smoothcert import (
    CertifiedAccuracyDisplay,
    GaussianNoise,
    ProbabilityDisplay,
    SmoothedClassifier,
    SplitNoise,
    UniformNoise,
)

X, y = load_breast_cancer(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

certificates = {}
for noise in (SplitNoise(lam=1), SplitNoise(lam=3), UniformNoise(lam=1), GaussianNoise(sigma=0.5)):
    base = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    clf = SmoothedClassifier(base, noise, bounds="minmax", n_samples=5000, random_state=0)
    certificates[str(noise)] = clf.fit(X_train, y_train).certify(X_test)

CertifiedAccuracyDisplay.from_certificates(certificates, y_test)
plt.show()

# %%
# A list of certificates is drawn as one curve: at each radius, the best of the list. Figure 1 of the paper consists of
# such envelopes. No single classifier achieves one.

best = [certificates["SplitNoise(lam=1)"], certificates["SplitNoise(lam=3)"]]
uniform = certificates["UniformNoise(lam=1)"]
CertifiedAccuracyDisplay.from_certificates({"splitting noise, best lam": best, "uniform noise": uniform}, y_test)
plt.show()

# %%
# The same votes can be certified with several radius strategies. The three strategies differ only in how far a feature
# is assumed to move, so each curve lies above the one before. An arrow at the right end marks inputs that are certified
# at every radius.

clf = SmoothedClassifier(base, SplitNoise(lam=3), bounds="minmax", n_samples=5000, random_state=0)
votes = clf.fit(X_train, y_train).count_votes(X_test)
strategies = {
    radius: clf.set_params(radius=radius).certify(X_test, votes=votes) for radius in ("lipschitz", "box", "greedy")
}
CertifiedAccuracyDisplay.from_certificates(strategies, y_test)
plt.show()

# %%
# The distribution of the probabilities behind these radii shows easy and hard inputs alike. An average radius does not.
# The probabilities are the same for all three strategies.

ProbabilityDisplay.from_certificates({"splitting noise, lam=3": strategies["greedy"]}, y_test)
plt.show()

# %%
# ``summary`` gives the same numbers as a table. It renders in notebooks, and has ``to_markdown`` and ``to_latex``.

print(strategies["greedy"].summary(y_test, radii=[0, 0.5, 1, 2, 3]))
