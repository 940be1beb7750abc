"""Signals: noted the moment they come, whatever the main thread does, and obeyed in good time."""

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")

CHECK = 0.1
"""Seconds, at most, after which a signal is answered that something else has swallowed."""


class Stopped(SystemExit):
    """A run that left because of a signal, nothing lost; exit status 128 + the signal's number.

    `agreed`: all processes of the cluster leave at the same step.
    """

    def __init__(self, received: signal.Signals, *, agreed: bool):
        self.status = 128 + int(received)
        super().__init__(self.status)
        self.received, self.agreed = received, agreed

    def __str__(self) -> str:
        return self.received.name


class Signals:
    """While entered, SIGTERM, SIGINT and SIGUSR1 are noted rather than obeyed.

    As long as nothing has been learned that would have to be saved (`at_once`) they raise `Stopped`
    in the main thread. A second SIGINT leaves at once, always, with status 130.

    What runs in the main thread may swallow the exception, as callbacks of weak references and of
    the garbage collector do, of which tracing has many: so `check` raises it again.
    """

    NOTED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    current: ClassVar["Signals | None"] = None
    """The one that is entered."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.at_once = True
        self._said = threading.Lock()  # held until the first signal's line has been written
        self._said.acquire()
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> "Signals":
        if threading.current_thread() is not threading.main_thread():
            return self
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self._undo.callback(theirs.close)
        # Python runs handlers between two of its instructions, which may be minutes of compiling.
        self._undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(theirs.fileno()))
        for each in self.NOTED:
            self._undo.callback(signal.signal, each, signal.signal(each, self._obey))
        self._undo.enter_context(_swallowed_in_silence())
        self._undo.callback(setattr, Signals, "current", None)
        Signals.current = self
        threading.Thread(target=self._listen, args=(ours,), name="signals", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    def check(self) -> None:
        """Raises `Stopped` if a signal has come and nothing has been learned yet."""
        if self.at_once and self.received is not None:
            if self._said.acquire(timeout=1):  # the process may end before the listener's turn
                self._said.release()
            raise Stopped(self.received, agreed=False)

    def learns(self) -> None:
        """From now on there is something to save."""
        self.check()
        self.at_once = False

    def _listen(self, wakened: socket.socket) -> None:
        interrupted = said = False
        with wakened:
            while number := wakened.recv(1):
                if number[0] not in self.NOTED:
                    continue
                received = signal.Signals(number[0])
                if received is signal.SIGINT and interrupted:
                    os.write(2, b"stopped at once: nothing more was saved\n")
                    os._exit(128 + received)
                interrupted |= received is signal.SIGINT
                doing = "leaving" if self.at_once else "saving and leaving"
                again = ", again to leave at once" if received is signal.SIGINT else ""
                os.write(2, f"{received.name}: {doing}{again}\n".encode())
                self.received = received
                if not said:
                    self._said.release()
                    said = True

    def _obey(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self.check()


@contextlib.contextmanager
def _swallowed_in_silence() -> Iterator[None]:
    hook = sys.unraisablehook

    def unraisable(what: "sys.UnraisableHookArgs") -> None:
        if not isinstance(what.exc_value, Stopped):
            hook(what)

    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        if sys.unraisablehook is unraisable:
            sys.unraisablehook = hook


def interruptible(function: Callable[[], T]) -> T:
    """What `function` returns, worked out in a thread, so that a signal is answered meanwhile.

    Then the thread is left behind, and the process ends without waiting for it: what `atexit` has
    is not called.
    """
    result: list[Any] = []
    done = threading.Event()

    def work() -> None:
        try:
            result.append((function(), None))
        except BaseException as error:
            result.append((None, error))
        done.set()

    try:
        threading.Thread(target=work, name="compile", daemon=True).start()
        while not done.wait(CHECK):
            if Signals.current is not None:
                Signals.current.check()
    except Stopped as stopped:
        atexit.register(
            leave_at_once, stopped.status
        )  # the first to run: XLA must not be torn down
        raise
    value, error = result[0]
    if error is not None:
        raise error
    return value


def leave_at_once(status: int) -> None:
    """Ends the process: what was written is shown, and nothing else is done or waited for."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)
