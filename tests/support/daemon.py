"""A server of somebody else's that a test starts, stops, and lets hang."""

from __future__ import annotations

import signal
import subprocess


class Daemon:
    """Whoever extends it starts ``process``."""

    process: subprocess.Popen[bytes] | None = None

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.resume()
            process, self.process = self.process, None
            process.send_signal(number)
            process.wait(30)

    def pause(self) -> None:
        """Hang, as a stopped machine does: the kernel still takes connections."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
