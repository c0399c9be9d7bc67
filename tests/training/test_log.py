"""What a trial says is collected, within bounds and as plain text; afterwards everything is as it was."""
# ruff: noqa: T201

import io
import logging
import re
import subprocess
import sys
import threading

import pytest

from sweep.training.log import TrialLog

LIMIT = 64_000


def test_prints_and_log_records_are_collected_in_their_order(capsys):
    logger = logging.getLogger("some.library")
    with TrialLog() as log:
        print("to stdout")
        print("to stderr", file=sys.stderr)
        logger.info("too quiet")
        logger.warning("loss is %s", "large")
        try:
            raise KeyError("name")
        except KeyError:
            logger.exception("caught")
        sys.stdout.buffer.write("bytes, also ü\n".encode())
        sys.stdout.writelines(["one\n", "two\n"])
        text = log.take()
    lines = text.splitlines()
    assert lines[:5] == [
        "to stdout", "to stderr", "WARNING some.library: loss is large", "ERROR some.library: caught",
        "Traceback (most recent call last):",
    ]  # fmt: skip
    assert lines[-4:] == ["KeyError: 'name'", "bytes, also ü", "one", "two"]
    assert log.take() == ""
    assert capsys.readouterr() == ("", "")


def test_take_empties_and_what_is_left_can_be_taken_after_the_end():
    with TrialLog() as log:
        print("one")
        assert log.take() == "one\n"
        print("two", end="")
    assert log.take() == "two"


def test_without_capture_nothing_is_touched(capsys):
    before = (sys.stdout, sys.stderr, list(logging.getLogger().handlers))
    with TrialLog(capture=False) as log:
        assert (sys.stdout, sys.stderr, logging.getLogger().handlers) == before
        print("shown")
        assert log.take() == ""
    assert capsys.readouterr().out == "shown\n"


OUTSIDE_PYTEST = """
import logging, sys, warnings
from sweep.training.log import TrialLog
def work():
    warnings.warn("the schedule is odd")
for _ in range(2):
    with TrialLog() as log:
        work()
        work()
    assert log.take().count("UserWarning: the schedule is odd") == 1
logging.captureWarnings(True)
with TrialLog() as log:
    work()
assert "the schedule is odd" in log.take()
with TrialLog() as log:
    logging.warning("%d", "no number")
    print("goes on")
text = log.take()
assert "Logging error" in text and text.rstrip().endswith("goes on"), text
"""


def test_each_trial_is_told_of_its_own_warnings_and_of_a_record_that_cannot_be_formatted():
    done = subprocess.run([sys.executable, "-c", OUTSIDE_PYTEST], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- bounds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "piece",
    ["x" * 99 + "\n", "ü€" * 40 + "\n", "x" * 300_000 + "\n", "a\x00\x9b\n"],
    ids=["lines", "more than ASCII", "long lines", "controls"],
)
def test_of_more_than_64_kb_the_middle_is_left_out_and_the_text_says_so(piece):
    with TrialLog() as log:
        print("first line")
        for _ in range(0, 2_000_000, len(piece)):
            sys.stdout.write(piece)
        print("last line")
        text = log.take()
    assert len(text.encode()) <= LIMIT
    assert text.startswith("first line\n")
    assert text.endswith("last line\n")
    (dropped,) = re.findall(r"\n\[([\d,]+) bytes are left out here\]\n", text)
    assert int(dropped.replace(",", "")) > 1_900_000
    assert "�" not in text


def test_what_fits_is_whole():
    with TrialLog() as log:
        sys.stdout.write("€" * 20_000)  # the halves meet within a character
        text = log.take()
        assert text == "€" * 20_000
        sys.stdout.write("x" * 40_000)
        assert log.take() == "x" * 40_000


def test_memory_is_bounded_too():
    with TrialLog() as log:
        for _ in range(1000):
            sys.stdout.write("x" * 10_000)
        assert len(log._collected._first) + len(log._collected._last) < 2 * LIMIT


# -- plain text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("\x1b[1;31merror\x1b[0m", "error"),
        ("\x1b]8;;http://host\x1b\\link\x1b]8;;\x07", "link"),
        ("\x1b]0;title without an end\nnext", "0;title without an end\nnext"),
        ("a\x1b(Bb\x1bMc", "abc"),
        ("bell\x07 null\x00 delete\x7f", "bell? null? delete?"),
        ("8 bit \x9b31m", "8 bit ?31m"),
        ("\u202eright to left\u2066", "?right to left?"),
        ("tab\tand\r\nline\r\n", "tab\tand\nline\n"),
        ("10 %\r50 %\r100 %\ndone", "100 %\ndone"),
        ("50 %\r", "50 %"),
        ("alone \udc80", "alone \\udc80"),
        ("Zürich, 東京, 🙂", "Zürich, 東京, 🙂"),
    ],
)
def test_colours_go_and_controls_are_replaced(said, kept):
    with TrialLog() as log:
        for character in said:  # in pieces, as a stream may come
            sys.stdout.write(character)
        assert log.take() == kept


def test_bytes_that_are_no_text():
    with TrialLog() as log:
        sys.stdout.buffer.write(b"a\xff\xfeb\n")
        assert log.take() == "a??b\n"


def test_a_line_without_end_is_cleaned_in_no_time():
    with TrialLog() as log:
        sys.stdout.write("\x1b[" * 30_000 + "\r" + "\x1b]" * 900)
        assert len(log.take()) <= LIMIT


# -- threads, again, nested ------------------------------------------------------------------------------------


def test_many_threads_may_print():
    def work(number):
        for _ in range(200):
            print(f"thread {number} prints")

    with TrialLog() as log:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        taken = [log.take() for _ in range(50)]
        for thread in threads:
            thread.join()
        taken.append(log.take())
    text = "".join(taken)
    assert [text.count(f"thread {number} prints") for number in range(8)] == [200] * 8


def test_a_thread_that_outlives_the_log_writes_where_it_would_have_written(capsys):
    go_on = threading.Event()

    def work():
        stream = sys.stdout
        go_on.wait()
        print("late", file=stream)

    with TrialLog() as log:
        thread = threading.Thread(target=work)
        thread.start()
    go_on.set()
    thread.join()
    assert log.take() == ""
    assert capsys.readouterr().out == "late\n"


def state():
    return sys.stdout, sys.stderr, list(logging.getLogger().handlers), logging.getLogger().level


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_everything_is_as_it_was_trial_after_trial(error):
    before = state()
    log = TrialLog()
    for number in range(3):
        try:
            with log:
                print(number)
                if error:
                    raise error
        except (ValueError, KeyboardInterrupt):
            pass
        assert state() == before
        assert log.take() == f"{number}\n"


def test_nested_logs():
    before = state()
    with TrialLog() as outer:
        print("outer")
        with TrialLog() as inner:
            print("inner")
        print("outer again")
    assert (outer.take(), inner.take()) == ("outer\nouter again\n", "inner\n")
    assert state() == before


def test_logs_that_overlap():
    before, first, second = state(), TrialLog(), TrialLog()
    first.__enter__()
    second.__enter__()
    first.__exit__()
    print("second")
    second.__exit__()
    assert state() == before
    assert (first.take(), second.take()) == ("", "second\n")


def test_what_others_put_in_place_meanwhile_stays(monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    other = io.StringIO()
    with TrialLog():
        sys.stdout = other
    assert sys.stdout is other


def test_a_child_process_may_be_given_the_stream(capfd):
    with TrialLog() as log:
        subprocess.run([sys.executable, "-c", "print('child')"], stdout=sys.stdout, check=True)
    assert log.take() == ""
    assert capfd.readouterr().out == "child\n"


def test_a_process_without_streams(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with TrialLog() as log:
        stream = sys.stdout
        print("said")
    assert sys.stdout is None
    print("lost", file=stream)
    assert log.take() == "said\n"
