"""What tasks on a Ray cluster say of how far they are; its process needs no PyTorch."""

from __future__ import annotations

from typing import Any


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
