"""The guarantee suite: certificates of base models whose true robustness is known, and how many of them are false.

Run all of it with ``python -m tests.guarantees``.
"""
