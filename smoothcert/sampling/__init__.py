"""Votes of the base model under noise: inputs and numbers of samples in, counts out (Algorithm 1, SampleUnderNoise).

`sampler` draws the votes of both stages, `selection` says how many choose the class, `counters` counts the votes of a
batch, and `batch_dependence` checks that a vote depends on its row alone. `exact` computes probabilities instead.
`values` and `scores` collect the numbers of a regression model and the scores of labels in place of votes.
"""
