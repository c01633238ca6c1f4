"""The requests that wait for the process that draws."""

from __future__ import annotations

import threading
from collections import OrderedDict

from lora_studio.jobs.renderer import ImageRequest


class Inbox:
    """Requests in the order in which they come, one for each lane: a newer one replaces the lane's."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, ImageRequest] = OrderedDict()
        self._changed = threading.Condition()
        self._taken: ImageRequest | None = None
        self._cancelled: ImageRequest | None = None
        self.closed = False

    def put(self, request: ImageRequest) -> ImageRequest | None:
        """Adds ``request``; returns the one that it replaces."""
        with self._changed:
            dropped = self._waiting.pop(request.lane, None)
            self._waiting[request.lane] = request
            self._changed.notify()
            return dropped

    def take(self, patience: float) -> ImageRequest | None:
        """The next request; None when the inbox is closed or nothing came for ``patience`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._waiting, patience)
            self._taken = None if self.closed or not self._waiting else self._waiting.popitem(last=False)[1]
            return self._taken

    def cancel(self, lane: str) -> ImageRequest | None:
        """Ends the work for ``lane``; returns the request that waited for it."""
        with self._changed:
            if self._taken and self._taken.lane == lane:
                self._cancelled = self._taken
            return self._waiting.pop(lane, None)

    def close(self) -> None:
        """Ends the work: what is being drawn is dropped, and nothing more is taken."""
        with self._changed:
            self.closed = True
            self._changed.notify()

    def superseded(self, request: ImageRequest) -> bool:
        """Whether nobody wants the image of ``request`` any longer."""
        return self.closed or request.lane in self._waiting or request is self._cancelled
