"""What a running loop can be asked for, as the loop sees it. Whoever runs it brings the answers."""

from __future__ import annotations


class Requests:
    """Nobody asks for anything: the loop runs to its last step. A worker's subclass reads the run's folder."""

    def stop(self) -> bool:
        """Whether to save and end now."""
        return False

    def paused(self) -> bool:
        """Whether to wait before the next step."""
        return False

    def take_preview(self) -> bool:
        """Whether previews are wanted now; asking takes the request."""
        return False

    def take_save(self) -> bool:
        """Whether a checkpoint is wanted now; asking takes the request."""
        return False

    def pause(self) -> None:
        """Makes the loop's own waiting look like one that was asked for: it ends when the user lets the run go on."""

    def go_on(self) -> None:
        """Takes a pause back that is no longer needed."""

    def take_stop(self) -> bool:
        """Whether it was to stop; asking takes the request."""
        return False
