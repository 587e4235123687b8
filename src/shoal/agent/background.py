"""One thread that takes turns until it is told to stop, or until only a person can help."""

import threading
from collections.abc import Callable

from shoal.core.errors import ShoalError
from shoal.wire.backoff import Backoff, transient

JOIN_SECONDS = 60.0

MOST_SECONDS = 600.0
"""The longest pause after failures: when a coordinator was away for long, not all come back in one moment."""


class Background:
    """Takes turns in a thread of its own; a turn is given the event that stops it and returns seconds to pause.

    A failure that passes is tried again, less and less often; any other ends the thread and stays in `problem`.
    """

    def __init__(
        self, turn: Callable[[threading.Event], float], say: Callable[[str], None], backoff: Backoff | None = None
    ) -> None:
        self._turn = turn
        self._say = say
        self._backoff = backoff or Backoff(most=MOST_SECONDS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shoal device", daemon=True)
        self.problem = ""
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it still takes turns."""
        return self._thread.is_alive()

    @property
    def here(self) -> bool:
        """Whether this is called in its thread."""
        return threading.current_thread() is self._thread

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End it in the middle of what it does, and return when it ended."""
        self._stop.set()
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                pause = self._turn(self._stop)
                self._backoff.reset()
                self.problem = ""
            except ShoalError as error:
                self.problem = str(error)
                self._say(self.problem)
                if not transient(error):
                    return
                pause = self._backoff.next()
            self._stop.wait(pause)
