"""Compiled functions, with and without a cache."""

import numba

from smoothcert._utils.compiled import njit


def test_compiled_functions_fall_back_to_no_cache(monkeypatch):
    asked = []

    def without_a_directory(cache=False, **options):
        asked.append((cache, options))
        if cache:
            raise RuntimeError("no locator available")
        return lambda function: (function, options)

    monkeypatch.setattr(numba, "njit", without_a_directory)
    assert njit(cache=True, nogil=True)(abs) == (abs, {"nogil": True})
    assert njit(parallel=True)(abs) == (abs, {"parallel": True})
    assert asked == [(True, {"nogil": True}), (False, {"nogil": True}), (False, {"parallel": True})]
