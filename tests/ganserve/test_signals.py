import os
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import signal, time
from ganserve import signals

told = []
signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
{before}
signals.heed()
print("ready", flush=True)
end = time.monotonic() + 20
while not told and time.monotonic() < end:
    time.sleep(0.01)
print("told", told)
"""


@pytest.mark.parametrize(
    ("before", "sent", "end"),
    [
        ("", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGTERM], "told [15]\n"),
        ("", [signal.SIGHUP], "told [15]\n"),
        # As by nohup; and what somebody handles is theirs.
        ("signal.signal(signal.SIGHUP, signal.SIG_IGN)", [signal.SIGHUP, signal.SIGTERM], "told [15]\n"),
        ("signal.signal(signal.SIGUSR1, lambda n, f: told.append(n))", [signal.SIGUSR1], "told [10]\n"),
    ],
)
def test_the_end_of_a_terminal_is_told_as_the_end_and_what_means_nothing_ends_nothing(
    before: str, sent: list[signal.Signals], end: str
) -> None:
    command = [sys.executable, "-c", PROGRAM.format(before=before)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for number in sent:
        process.send_signal(number)
    assert process.communicate(timeout=30)[0] == end
    assert process.returncode == 0
