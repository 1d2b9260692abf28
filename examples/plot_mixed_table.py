"""
Certificates for a table of numbers and categories
==================================================

A survey asked voters for their party, and where they see themselves and both candidates between left and right. How
many of these answers can be wrong before the predicted vote changes? Age, education and income stay as they are.
Another party is one change of a category, which costs half the range of a number.
"""

# %%
# A wrong answer costs its share of the range. The noise leaves fixed columns alone, and hides the party now and then.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import statsmodels.api as sm
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from smoothcert import CertifiedAccuracyDisplay, SmoothedClassifier, SplitNoise, baselines
from smoothcert.results import summarize

data = sm.datasets.anes96.load_pandas().data
X = data[["selfLR", "ClinLR", "DoleLR", "TVnews", "age", "educ", "income"]].copy()
X["party"] = pd.cut(data["PID"], [-1, 1, 4, 6], labels=["Democrat", "Independent", "Republican"])
y = np.where(data["vote"] == 1, "Dole", "Clinton")
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=300, stratify=y, random_state=0)

encode = make_column_transformer((OneHotEncoder(sparse_output=False), ["party"]), remainder="passthrough")
base = make_pipeline(encode, GradientBoostingClassifier(max_depth=1, random_state=0))
costs = {"age": "fixed", "educ": "fixed", "income": "fixed", "party": 0.5}

certificates = {}
for lam in 0.55, 0.7, 1.0:
    clf = SmoothedClassifier(
        base, SplitNoise(lam), bounds="minmax", costs=costs, categorical_features=["party"], random_state=0
    )
    certificates[f"lam={lam}"] = clf.fit(X_train, y_train).certify(X_test)

# %%
# The base model consists of boosted stumps, so that the probabilities are exact: nothing is sampled. Two baselines
# cannot be attacked at all: the most frequent class, and the same model on the fixed columns alone. A certificate is
# worth something only above both.

unmovable = baselines(certificates["lam=0.7"], clf, X_train, y_train, X_test)
curves = certificates | {"fixed columns": unmovable["fixed columns"]}
CertifiedAccuracyDisplay.from_certificates(curves, y_test)
plt.show()

# %%
# The narrow noise is best for small errors, the wide noise for large ones. A radius of 0.5 allows another party, or
# half the range of one of the numbers.

print(summarize(certificates | unmovable, y_test, radii=[0, 0.1, 0.25, 0.5]))

# %%
# One voter: how far each answer can move, and what the worst change within the radius would be. A category that
# changes has moved by its cost.

voter = int(np.argsort(certificates["lam=1.0"].radii)[150])
worst = clf.worst_perturbations(X_test.iloc[[voter]], certificates["lam=1.0"].radii[[voter]])
moved = pd.DataFrame({"answer": X_test.iloc[voter], "reach": worst.reach[0], "move": worst.moves[0] + 0.0})
print(moved.drop(index=["age", "educ", "income"]).to_string())
