"""Signals: said at once, waited for where something is in progress, left at once by the second, before and after."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from training.stops import graceful_stop

ROOT = Path(__file__).parent.parent.parent


def send(number=signal.SIGINT):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_said_and_waited_for_and_the_second_leaves(number, capfd):
    before, waited = signal.getsignal(number), False
    with pytest.raises(SystemExit) as leaving, graceful_stop() as stop:
        stop.wait_for = "step 5"
        assert not stop
        send(number)
        waited = True
        assert stop and stop.number == number
        assert f"{number.name}: waiting for step 5; again leaves at once" in capfd.readouterr().err
        send(number)
        pytest.fail("the second did not leave")
    assert waited and leaving.value.code == 128 + number and "left at once" in capfd.readouterr().err
    assert signal.getsignal(number) == before


def test_where_nothing_is_waited_for_the_first_leaves(capfd):
    with pytest.raises(SystemExit) as leaving, graceful_stop() as stop:
        stop.state = "the training is done"
        send()
    assert leaving.value.code == 130 and "SIGINT: left at once, the training is done" in capfd.readouterr().err


def test_a_block_that_does_not_end_on_the_second_is_killed_by_the_third():
    code = """
        import os, signal
        from training.stops import graceful_stop
        with graceful_stop() as stop:
            stop.wait_for = "x"
            for _ in range(3):
                try: os.kill(os.getpid(), signal.SIGTERM)
                except SystemExit: pass
            print("went on")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM and not done.stdout


def test_in_another_thread_there_are_no_handlers():
    seen = []

    def work():
        with graceful_stop() as stop:
            seen.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
