"""Following a Ray job whose connection breaks: what is written, and what it ends with. Ray itself: test_submit_ray."""

import io
from types import SimpleNamespace

import pytest
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus

from cluster.errors import RunError
from cluster.launch import ray_jobs
from cluster.launch.ray_jobs import LOST_WITH_ITS_HEAD, RayOptions, exit_status, follow

LOST = ConnectionError("Failed to connect to Ray")
UNKNOWN = RuntimeError("Request failed with status code 404: Job demo does not exist.")


def details(status=JobStatus.RUNNING, code=None, error_type=None, message=None):
    return SimpleNamespace(status=status, driver_exit_code=code, error_type=error_type, message=message)


RUNNING = details()
ENDED = details(JobStatus.FAILED, 75)


class Told:
    """A dashboard that answers as a test says: a list of answers, and what each connection gives before it breaks or ends."""

    def __init__(self, answers, connections):
        self.answers, self.connections = iter(answers), iter(connections)

    def get_job_info(self, submission):
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def tail_job_logs(self, submission):
        for text in next(self.connections):
            if isinstance(text, Exception):
                raise text
            yield text


@pytest.fixture
def followed(monkeypatch):
    async def at_once(seconds):
        """No test waits."""

    def run(answers, connections, patience_s=60, write=None):
        written = io.StringIO()
        told = Told(answers, connections)
        monkeypatch.setattr(ray_jobs, "_client", lambda address: told)
        monkeypatch.setattr(ray_jobs.asyncio, "sleep", at_once)
        status = follow("demo", RayOptions("http://head:8265", patience_s=patience_s), write or written.write)
        return status, written.getvalue()

    return run


def test_output_over_one_connection(followed):
    assert followed([RUNNING, ENDED], [["a\nb\n", "c\n"]]) == (75, "a\nb\nc\n")


@pytest.mark.parametrize(
    "connections",
    [
        [["a\nb\n", LOST], ["a\nb\nc\n"]],
        [["a\n", "b", LOST], ["a", "\nb\n", "c\n"]],
        [["a\nb\n"], ["a\n", "b\nc\n"]],
        [[LOST], ["a\nb\nc\n"]],
    ],
    ids=["broken", "broken in a line", "ended though the job goes on", "broken at once"],
)
def test_output_goes_on_where_it_was_and_no_letter_comes_twice(followed, connections):
    broken = isinstance(connections[0][-1], Exception)
    answers = [RUNNING, RUNNING, ENDED] if broken else [RUNNING, RUNNING, RUNNING, ENDED]
    assert followed(answers, connections) == (75, "a\nb\nc\n")


def test_silence_and_return_are_said_once_each(followed, capsys):
    assert followed([RUNNING, LOST, LOST, LOST, RUNNING, ENDED], [["a\n", LOST], ["a\nb\n"]]) == (75, "a\nb\n")
    said = capsys.readouterr().err
    assert said.count("does not answer") == said.count("answers again") == 1


@pytest.mark.parametrize("answers", [[UNKNOWN], [RUNNING, UNKNOWN], [RUNNING, LOST, UNKNOWN]])
def test_a_job_that_the_cluster_does_not_know_any_more_is_lost(followed, answers):
    assert followed(answers, [["a\n", LOST if answers[1:2] == [LOST] else "b\n"]])[0] is None


def test_a_head_that_is_silent_for_too_long_is_lost(followed):
    assert followed([RUNNING, LOST], [["a\n"]], patience_s=0)[0] is None


def test_who_is_not_let_in_is_told_so_and_not_asked_to_wait(followed):
    with pytest.raises(RunError, match="token is wrong"):
        followed([AuthenticationError("token is wrong")], [])


def test_output_that_cannot_be_written_is_no_lost_connection(followed):
    def full(text):
        raise OSError("No space left on device")

    with pytest.raises(RunError, match="No space left on device.*the job goes on"):
        followed([RUNNING], [["a\n"]], write=full)


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (details(JobStatus.SUCCEEDED, 0), 0),
        (details(JobStatus.SUCCEEDED), 0),
        (details(JobStatus.FAILED, 2), 2),
        (details(JobStatus.FAILED, -9), 137),
        (details(JobStatus.STOPPED), 143),
        *[(details(JobStatus.FAILED, error_type=cause), None) for cause in LOST_WITH_ITS_HEAD],
    ],
)
def test_the_status_is_the_commands_own(ended, expected):
    assert exit_status(ended, "http://head:8265") == expected


def test_a_job_that_was_not_begun_says_why():
    with pytest.raises(RunError, match="not begun: no such package"):
        exit_status(
            details(JobStatus.FAILED, error_type="RUNTIME_ENV_SETUP_FAILURE", message="no such package\ntrace"), "http://h"
        )
