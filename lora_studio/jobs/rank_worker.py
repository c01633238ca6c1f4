"""One of the other processes of a run on several GPUs: ``python -m lora_studio.jobs.rank_worker OUTPUTS LEADER``. If it
fails, its last line of output is the reason.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path

from lora_studio import libraries
from lora_studio.errors import StudioError
from lora_studio.events import Failed
from lora_studio.jobs import identity
from lora_studio.jobs.ranks import PEER_ENDED


def main(outputs: str, parent: int) -> int:
    """Follows the leader to the end of the run; returns the process's exit status."""
    with libraries.importing():
        from lora_studio.training.distributed import PeerLost

    try:
        follow(Path(outputs), parent)
        return 0
    except Exception as error:  # the last place where a fault can still reach the leader
        if not isinstance(error, StudioError):
            traceback.print_exc()
        print(Failed.of(error).line(), flush=True)
        return PEER_ENDED if isinstance(error, PeerLost) else 1


def follow(outputs: Path, parent: int) -> None:
    """Follows the leader, as the process that the environment describes. Only the leader ends it: signals are ignored.
    It also ends with its ``parent``.

    Raises:
        StudioError: as ``training.follower.follow``.
    """
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)
    identity.end_with(parent, PEER_ENDED)  # a GPU would wait forever for a leader that was killed
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with libraries.importing():
        from lora_studio.training import distributed, follower

    with distributed.joined() as world:
        follower.follow(world, outputs)


if __name__ == "__main__":
    status = main(sys.argv[1], int(sys.argv[2]))
    sys.stdout.flush()
    os._exit(status)  # an ordinary end would wait for a GPU that waits for a process that is gone
