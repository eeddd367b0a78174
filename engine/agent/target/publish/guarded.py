"""Publishing where there are no locks: the fence is read before each rename."""

from __future__ import annotations

from engine.agent.target.publish.publisher import Publisher
from engine.agent.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Callable


class GuardedPublisher(Publisher):
    """A Publisher that nothing keeps a newer attempt's agent from: `check` raises if one came."""

    def __init__(self, check: Callable[[], None], *place: Any) -> None:
        super().__init__(*place)
        self._check = check

    def _move(self, *names: Any) -> None:
        self._check()
        super()._move(*names)
