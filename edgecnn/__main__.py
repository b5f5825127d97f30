"""Start the command line: ``edgecnn``, or ``python -m edgecnn``. An interrupt at any moment is one line and status 130.

Only what starts fast is imported here, as an interrupt may come before anything else has been imported.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, NoReturn

INTERRUPTED = 130
AGAIN_S = 0.01
LINE = "edgecnn: interrupted; no half-written artifact was left\n"


class Interrupts:
    """Handle SIGINT: the first one raises ``KeyboardInterrupt`` in the command, so that it cleans up; others end it.

    Attributes:
        running: whether there is a command to clean up; otherwise the first SIGINT ends the process.
        seen: whether one came.
    """

    def __init__(self) -> None:
        self.running = self.seen = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal.

        Raises:
            KeyboardInterrupt: the command has not been interrupted before.
        """
        again, self.seen = self.seen, True
        if again or not self.running:
            end_now()
        raise KeyboardInterrupt

    def unraisable(self, fault: Any) -> None:
        """Interrupt again where Python lost the interrupt in a destructor or a callback, such as those of an import."""
        if not isinstance(fault.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(fault)
            return
        from threading import Timer

        self.seen = False
        Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGINT)).start()  # here it would be lost as well


def end_now() -> NoReturn:
    """End the process with one line; nothing that is not written whole is left by name."""
    try:
        os.write(2, LINE.encode())
    finally:
        os._exit(INTERRUPTED)


def main() -> int:
    """Run the command that the process was started with; return its exit status."""
    interrupts = Interrupts()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell's background job
        signal.signal(signal.SIGINT, interrupts)
        sys.unraisablehook = interrupts.unraisable
    from edgecnn.cli import main as command

    interrupts.running = True
    try:
        status = command()
    except KeyboardInterrupt:
        status = INTERRUPTED
    interrupts.running = False
    from edgecnn.cli.streams import flush

    flush()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done; while Python ends, it would be death by a signal
    return status


if __name__ == "__main__":
    sys.exit(main())
