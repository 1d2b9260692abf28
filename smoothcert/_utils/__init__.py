"""Checks of single arguments, imports of optional packages, values as exact text."""
