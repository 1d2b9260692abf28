"""One torch module, several runs at once: who votes with it, one at a time, and in which mode it is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary


class Turns:
    """What all users of one module share; see `turns_of`.

    Attributes
    ----------
    lock : RLock
        Held while the module computes: it may keep notes in its attributes.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self._door, self._n_users = Lock(), 0
        self._modes: dict[Any, bool] = {}

    @contextmanager
    def evaluating(self, module: Any) -> Iterator[None]:
        """Keep the module in evaluation mode until its last user is done; then it is left as the first found it."""
        with self._door:
            if not self._n_users:
                self._modes = {part: part.training for part in module.modules()}
            self._n_users += 1
            module.eval()
        try:
            yield
        finally:
            with self._door:
                self._n_users -= 1
                if not self._n_users:
                    for part, training in self._modes.items():
                        part.training = training
                    self._modes = {}


_turns: WeakKeyDictionary[Any, Turns] = WeakKeyDictionary()
_lock = Lock()


def turns_of(module: Any) -> Turns:
    """Return what all users of a module share, whatever voters they use it through."""
    with _lock:
        found = _turns.get(module)
        if found is None:
            found = _turns[module] = Turns()
        return found
