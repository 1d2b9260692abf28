"""Votes of the base model under noise: inputs and numbers of samples in, counts out (Algorithm 1, SampleUnderNoise)."""
