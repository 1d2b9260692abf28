"""Hashes of models by their content: votes belong to one model."""

from __future__ import annotations

import pickle
import secrets
import sys
from types import CodeType, FunctionType
from typing import Any

import cloudpickle
import joblib
import numpy as np
from joblib.hashing import NumpyHasher

#: Packages whose code is identified by their version, not by its content.
LIBRARIES = {"smoothcert", "numpy", "scipy", "sklearn", "numba", "torch", "skorch", "joblib", *sys.stdlib_module_names}


def content_hash(thing: Any) -> str:
    """Hash a picklable object by its content and the code of its classes, the same in every process.

    The round trip gives arrays the layout of loaded ones. cloudpickle handles lambdas, which joblib does not. An object
    that cannot be pickled gets a new hash each time, as if it had changed. Code that functions call outside of their
    class is not hashed.
    """
    try:
        loaded = cloudpickle.loads(cloudpickle.dumps(thing))
    except (AttributeError, TypeError, RuntimeError, pickle.PicklingError):
        return secrets.token_hex()
    try:
        return str(ContentHasher("md5").hash(loaded))
    except (AttributeError, TypeError, pickle.PicklingError):
        return str(joblib.hash(cloudpickle.dumps(loaded)))


class ContentHasher(NumpyHasher):
    """Hashes structured arrays by their fields, and classes and functions also by their code.

    The bytes between fields, as in the nodes of trees, are arbitrary. Pickles hold only the names of classes and
    functions.
    """

    def save(self, obj: Any) -> None:
        """Hash one object."""
        if isinstance(obj, np.ndarray) and obj.dtype.names is not None:
            obj = [(name, np.ascontiguousarray(obj[name])) for name in obj.dtype.names]
        elif isinstance(obj, type):
            super().save(class_code(obj))
        elif isinstance(obj, FunctionType) and not _is_known(obj):
            super().save(code_text(obj.__code__))
        super().save(obj)


def class_code(kind: type) -> str:
    """Return the code of all methods of a class, except those that libraries provide."""
    members = [item for parent in kind.__mro__ if not _is_known(parent) for item in sorted(vars(parent).items())]
    return "\n".join(
        f"{name} {code_text(function.__code__)}"
        for name, member in members
        for function in (member, getattr(member, "__func__", None), getattr(member, "fget", None))
        if isinstance(function, FunctionType)
    )


def code_text(code: CodeType) -> str:
    """Return compiled code as text that does not depend on where its file is."""
    constants = [
        code_text(value)
        if isinstance(value, CodeType)
        else repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)
        for value in code.co_consts
    ]
    return repr((code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants))


def _is_known(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] in LIBRARIES
