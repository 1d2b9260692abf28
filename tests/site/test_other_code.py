"""Networks that other code has trained, against independent loops in that code's conventions."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from statsmodels.stats.proportion import proportion_confint
from torch import nn

import smoothcert.noise.deterministic
from smoothcert import DeterministicSplitNoise, SmoothedClassifier, SplitNoise, certified_accuracy_score

LAM, LEVELS, CLASSES = 1.0, 16, range(10)


def splitting_noise(x):
    """Theorem 2.10 as it stands in the paper: floats between 0 and 2."""
    s = 2 * LAM * torch.rand_like(x)
    return torch.clamp(s, max=1) + (x > s).float()


class Doubled(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(2 * x)


@pytest.fixture(scope="module")
def trained():
    """A network from a plain loop of the other convention, and held-out digits."""
    X, y = load_digits(return_X_y=True)
    X = (X / LEVELS).astype(np.float32)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=60, stratify=y, random_state=0)
    images, labels = torch.from_numpy(X_train), torch.from_numpy(y_train)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
        for _ in range(300):
            rows = torch.randint(len(images), (256,))
            loss = nn.functional.cross_entropy(network(splitting_noise(images[rows])), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval(), X_test, y_test


def smoothed(model, noise, **params):
    return SmoothedClassifier.from_pretrained(model, CLASSES, noise, random_state=0, **params)


def test_votes_are_those_of_the_other_loop(trained):
    network, X, y = trained
    n = 4000
    votes = smoothed(Doubled(network), SplitNoise(LAM, levels=LEVELS), n_samples=n).count_votes(X)
    torch.manual_seed(1)
    theirs = np.zeros((len(X), 10), dtype=int)
    with torch.no_grad():
        for i, image in enumerate(torch.from_numpy(X)):
            answers = network(splitting_noise(image.expand(n, 64))).argmax(dim=1)
            theirs[i] = np.bincount(answers.numpy(), minlength=10)
    # The split points are a lattice here and floats there, both uniform: x > s has the same probability, and the values
    # differ by half a step. Counts of two samples of one binomial differ by 5 standard deviations at most.
    top = theirs.argmax(axis=1)
    ours, other = (counts[np.arange(len(X)), top] / n for counts in (votes.estimation, theirs))
    spread = np.sqrt(2 * np.maximum(other * (1 - other), 0.01) / n)
    assert np.abs(ours - other).max() < 5 * spread.max() + 0.02
    assert (votes.selection.argmax(axis=1) == top).mean() > 0.95
    assert (top == y).mean() > 0.85


def test_a_wrong_convention_costs_accuracy(trained):
    network, X, y = trained
    right, wrong = (
        smoothed(model, SplitNoise(LAM, levels=LEVELS), n_samples=1000).certify(X)
        for model in (Doubled(network), network)
    )
    assert certified_accuracy_score(y, right, 0.5) > certified_accuracy_score(y, wrong, 0.5) + 0.2


def test_their_two_sided_bound_is_half_of_our_alpha(trained):
    network, X, _ = trained
    n, alpha = 1000, 0.001
    clf = smoothed(Doubled(network), SplitNoise(LAM, levels=LEVELS), n_samples=n, radius="lipschitz")
    votes = clf.count_votes(X)
    selected = votes.selection.argmax(axis=1)
    count = votes.estimation[np.arange(len(X)), selected]
    lower = proportion_confint(count, n, alpha=alpha, method="beta")[0]
    np.testing.assert_allclose(lower, stats.beta.ppf(alpha / 2, count, n - count + 1), rtol=1e-9)

    # Levine and Feizi: the lower end alone.
    found = clf.set_params(scheme="binary", alpha=alpha / 2).certify(X, votes=votes)
    theirs = 2 * LAM * (lower - 0.5)
    assert (found.abstained == (theirs <= 0)).all()
    np.testing.assert_allclose(found.radii[~found.abstained], theirs[~found.abstained], rtol=1e-9)

    # The paper's code: the lower end for A, the upper one for the largest other count.
    others = votes.estimation.copy()
    others[np.arange(len(X)), selected] = -1
    upper = proportion_confint(others.max(axis=1), n, alpha=alpha, method="beta")[1]
    found = clf.set_params(scheme="multiclass", alpha=alpha).certify(X, votes=votes)
    theirs = LAM * (lower - np.minimum(upper, 1 - lower))
    certified = ~found.abstained
    assert certified.sum() > 30
    np.testing.assert_allclose(found.radii[certified], theirs[certified], rtol=1e-9)


def deterministic_counts(network, X, seed):
    """All outcomes by Levine and Feizi's template, in the doubled convention."""
    n_outcomes = int(2 * LAM * LEVELS)
    template = torch.from_numpy(np.random.RandomState(seed=seed).randint(n_outcomes, size=X.shape[1]))
    splits = ((torch.arange(n_outcomes)[:, None] + template) % n_outcomes + 0.5) / LEVELS
    counts = np.zeros((len(X), 10), dtype=int)
    with torch.no_grad():
        for i, image in enumerate(torch.from_numpy(X)):
            seen = (image[None] > splits).float() + splits.clamp(max=1).float()
            counts[i] = np.bincount(network(seen).argmax(dim=1).numpy(), minlength=10)
    return counts


def test_deterministic_noise_with_their_template_is_theirs_exactly(trained, monkeypatch):
    network, X, _ = trained

    def template(seed, n_offsets, n_features):
        return np.random.RandomState(seed=seed).randint(n_offsets, size=n_features)

    monkeypatch.setattr(smoothcert.noise.deterministic, "_template", template)
    for seed in (0, 3):
        counts = deterministic_counts(network, X, seed)
        order = np.argsort(-counts, axis=1, kind="stable")[:, :2]
        first, second = np.take_along_axis(counts, order, axis=1).T
        steps = (first - second - (order[:, 1] <= order[:, 0])) // 2
        found = smoothed(Doubled(network), DeterministicSplitNoise(LAM, levels=LEVELS, seed=seed)).certify(X)
        np.testing.assert_array_equal(found.labels, order[:, 0])
        certified = ~found.abstained
        np.testing.assert_allclose(found.radii[certified], steps[certified] / LEVELS, atol=1e-12)
        assert (steps[found.abstained] <= 0).all()


def test_another_template_certifies_another_classifier_of_like_accuracy(trained):
    network, X, y = trained
    scores = [
        certified_accuracy_score(
            y, smoothed(Doubled(network), DeterministicSplitNoise(LAM, levels=LEVELS, seed=seed)).certify(X), 0.25
        )
        for seed in range(4)
    ]
    assert min(scores) > 0.6
    assert max(scores) - min(scores) < 0.15
