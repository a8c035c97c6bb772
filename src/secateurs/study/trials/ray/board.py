"""What tasks on a Ray cluster say of how far they are; its process needs no PyTorch."""

from __future__ import annotations

from typing import Any

BRIEFLY_S = 0.1


class BoardActor:
    """Where tasks say how far they are; the driver reads the news now and then."""

    def __init__(self) -> None:
        self._news: dict[str, dict[str, Any]] = {}

    def say(self, event: dict[str, Any]) -> None:
        """The newest of each task stands for all before it."""
        self._news[event["key"]] = self._news.get(event["key"], {}) | event

    def read(self) -> list[dict[str, Any]]:
        """What has been said since the last time."""
        news, self._news = self._news, {}
        return list(news.values())


class News:
    """What a board has heard, without waiting: a late answer comes with the next look."""

    def __init__(self, ray: Any, board: Any) -> None:
        self._ray, self._board = ray, board
        self._asked: Any = None

    def read(self) -> list[dict[str, Any]]:
        """What has come in by now."""
        if self._asked is None:
            self._asked = self._board.read.remote()
        ready, _ = self._ray.wait([self._asked], timeout=BRIEFLY_S)
        if not ready:
            return []
        asked, self._asked = self._asked, None
        try:
            return self._ray.get(asked)
        except self._ray.exceptions.RayError:  # nothing hangs on it
            return []
