"""Programs that end with us, however we end: by kill -9 as well.

A shell alongside each program waits for the end of a pipe whose other end only this process holds. When the kernel
closes it, the shell sends the program a signal, and 8 seconds later another one if it still runs.
"""

import contextlib
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.embedded.accounts import Account

PATIENCE_SECONDS = 8

# $0: the log, or "". $1, $2: the signals. The program takes the shell's place, so that $$ is its process id. The
# waiting shell is nobody's child: PostgreSQL and others must not find one that they do not know.
#
# An ended program that nobody reaps counts as alive for kill -0: its state tells.
_SCRIPT = f"""
log=$0 first=$1 last=$2
shift 2
exec 3<&0 </dev/null
runs() {{
    kill -0 $$ || return
    read -r stat </proc/$$/stat || return 0
    case ${{stat##*) }} in [ZX]*) return 1 ;; esac
}}
(
    (
        read -r _ <&3 && exit
        kill -"$first" $$ || exit
        tenths={PATIENCE_SECONDS * 10}
        while [ $tenths -gt 0 ]; do
            sleep 0.1
            runs || exit
            tenths=$((tenths - 1))
        done
        kill -"$last" $$
    ) >/dev/null 2>&1 &
)
# An existing file may be a link: remove it first.
[ -z "$log" ] || {{ rm -f "$log" && exec >"$log" 2>&1; }} || exit
exec "$@" 3<&-
"""


class Guarded:
    """A running program, in a session of its own: Ctrl-C reaches us alone, and we end it in order.

    first, last   the signals that it gets when we were killed.
    log           where its output goes, opened with the rights of `account`; None: where ours goes.
    account       that it runs as; None: as ourselves.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        *,
        first: signal.Signals,
        last: signal.Signals = signal.SIGKILL,
        log: Path | None = None,
        account: Account | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        shell = ["sh", "-c", _SCRIPT, str(log or ""), str(int(first)), str(int(last))]
        self.process = subprocess.Popen(
            [*shell, *map(str, command)],
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.PIPE,
            start_new_session=True,
            umask=0o077 if account else -1,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            pass_fds=pass_fds,
        )

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it is gone, and reaped: a zombie counts as alive for PostgreSQL's own check at the next start."""
        if self.process.poll() is None:
            return False
        self._dismiss()
        return True

    def wait(self, seconds: float | None = None) -> int:
        """Its exit status. Raises subprocess.TimeoutExpired."""
        status = self.process.wait(seconds)
        self._dismiss()
        return status

    def _dismiss(self) -> None:
        """Tell the waiting shell that there is nothing to end: the number may be another program's by now."""
        pipe = self.process.stdin
        if pipe is None or pipe.closed:
            return
        with contextlib.suppress(OSError):
            pipe.write(b"ended\n")
            pipe.flush()
            # Until the shell is gone, too, so that nothing is left when we say so: its end of the pipe closes.
            waiting = select.poll()
            waiting.register(pipe, 0)
            waiting.poll(1_000)
        with contextlib.suppress(OSError):
            pipe.close()
