"""What a holder of the lock says of itself while it has it: its epoch, and a heartbeat."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

from orchestra.model.owner import BEATS_PER_TTL, Holder, ttl_of
from orchestra.store import lock


class Heart:
    """Beats until it is stopped, for observers who cannot see the holder's process.

    A beat that cannot be written is no error; whoever only looks at the number will say so.
    """

    def __init__(self, record: int, holder: Holder) -> None:
        self.holder = holder
        self._record = record
        self._writing = threading.Lock()  # else a beat could go to a descriptor that is another file by now
        self._stopped = threading.Event()
        with contextlib.suppress(RuntimeError):  # no thread to be had
            threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def sign(self, epoch: int) -> None:
        self._write(self.holder._replace(epoch=epoch))

    def stop(self) -> None:
        with self._writing:
            self._stopped.set()
            os.close(self._record)

    def _beat(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the main thread
        while not self._stopped.wait(ttl_of(self.holder) / BEATS_PER_TTL):
            self._write(None)

    def _write(self, holder: Holder | None) -> None:
        with self._writing, contextlib.suppress(OSError):
            if not self._stopped.is_set():
                self.holder = holder or self.holder._replace(beat=(self.holder.beat or 0) + 1)
                lock.write(self._record, self.holder)
