"""
Certified from below, attacked from above
=========================================

A certificate says that no perturbation within its radius changes the smoothed label. An attack looks for the smallest
perturbation that does. The true robust radius lies between the two.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from smoothcert import SmoothedClassifier, SplitNoise
from smoothcert.attacks import AttackDisplay, GreedyFaceAttack

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--images", type=int, default=20, help="test images (default: %(default)s)")
parser.add_argument("--samples", type=int, default=2000, help="votes per image (default: %(default)s)")
parser.add_argument("--output", type=Path, help="folder for the picture; without it, nothing is saved")
args, _ = parser.parse_known_args()

# %%
# The digits have 8 x 8 pixels with 17 gray values. The data is digital, so the attack stays on the lattice of 16 steps.
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
X_test, y_test = X_test[: args.images], y_test[: args.images]
clf = SmoothedClassifier(
    MLPClassifier((64,), max_iter=200, tol=0.01, n_iter_no_change=3, random_state=0),
    SplitNoise(lam=1.5, levels=16),
    bounds=(0, 16),
    n_samples=args.samples,
    random_state=0,
).fit(X_train, y_train)

# %%
# Radii are lower bounds. The attack moves pixels to black or white, the pixels that change the most votes first,
# until fresh votes show another label. Its distances are upper bounds.
certificates = clf.certify(X_test)
attack = GreedyFaceAttack(n_votes=100, random_state=0)
adversarials = attack.minimal(clf, X_test, y_test)
print(certificates)
print(adversarials)

display = AttackDisplay.from_results(y_test, certificates, adversarials)
display.ax_.set_title("Digits, splitting noise, lam = 1.5")
if args.output:
    args.output.mkdir(parents=True, exist_ok=True)
    display.figure_.savefig(args.output / "attack.png", dpi=150)

# %%
# For each image, the two bounds form an interval that contains the true robust radius.
right = certificates.labels == y_test
upper = adversarials.upper_bounds[right]
lower = certificates.radii[right]
order = lower.argsort()
figure, ax = plt.subplots(layout="constrained")
ax.vlines(range(len(order)), lower[order], upper[order], color="#BBBBBB", linewidth=4, label="gap")
ax.plot(upper[order], "v", color="#D55E00", label="adversarial input found (upper bound)")
ax.plot(lower[order], "o", color="#0072B2", label="certified (lower bound)")
ax.set(
    xlabel="test image, by certified radius",
    ylabel="l1 distance (1 = one pixel from black to white)",
    xticks=range(0, len(order), 5),
    ylim=(0, 1.3 * max(ax.get_ylim())),
)
ax.legend(frameon=False)
if args.output:
    figure.savefig(args.output / "attack_per_input.png", dpi=150)
