"""From counts to certificates: confidence bounds, stopping rules, radius strategies, and Algorithm 1 itself.

| step | module |
|---|---|
| Algorithm 1: votes, bounds on probabilities, radii | `algorithm` |
| votes for class A and its strongest rival | `duel` |
| Clopper-Pearson and other bounds; alpha is split between p_a and p_b (section 2.6) | `binomial` |
| bets on votes, valid whenever drawing stops (Ville) | `betting` |
| alpha of `certify_at` is split between bets and a final bound; alpha of ``rtol`` | `evidence` |
| when to stop drawing, which is a question of cost alone | `stopping`, `futility` |
| Corollaries 2.4, 2.7, 2.13, 2.14, Proposition 2.5 and Theorem 2.8 as radius strategies | `radius`, `strategy` |
| the same for raw inputs; the worst perturbation; the probability that a radius needs; the smallest overlap | `reach` |
| quantiles of a regression model's votes, bounded by order statistics | `quantiles` |
| prediction sets: a threshold from calibration scores, and how many copies an attack can take | `conformal_sets` |
| the walk of Theorem 2.8 over decreasing reaches | `smoothcert.noise.greedy` |
| cost and budget of each noise (Proposition 2.1, Theorem 2.11, Proposition 2.12) | `smoothcert.noise` |
| strings such as "greedy" and "split" | `names` |
"""

from .radius import BoxRadius, GreedyRadius, LipschitzRadius
from .strategy import RadiusStrategy

__all__ = ["BoxRadius", "GreedyRadius", "LipschitzRadius", "RadiusStrategy"]
