"""`metrics.jsonl`: a step that was done twice counts as the last attempt did it."""

from cluster import metrics


def step(attempt, number, loss):
    return {"attempt": attempt, "step": number, "samples": number * 4, "train/loss": loss}


def test_a_resumed_attempt_undoes_what_came_after_its_checkpoint(tmp_path):
    file = tmp_path / metrics.FILE
    metrics.append(file, [{"attempt": "a", "resumed_from": 0}, *(step("a", n, 1.0) for n in range(1, 8))])
    metrics.append(file, [{"attempt": "b", "resumed_from": 4}, *(step("b", n, 2.0) for n in range(5, 7))])
    assert [(line["step"], line["train/loss"]) for line in metrics.read(file)] == [
        *((n, 1.0) for n in range(1, 5)),
        (5, 2.0),
        (6, 2.0),
    ]
    assert [line["attempt"] for line in metrics.attempts(file)] == ["a", "b"]


def test_training_and_validation_of_a_step_are_one_line(tmp_path):
    file = tmp_path / metrics.FILE
    metrics.append(file, [step("a", 1, 1.0), {"attempt": "a", "step": 1, "samples": 4, "eval/loss": 3.0}])
    [line] = metrics.read(file)
    assert (line["train/loss"], line["eval/loss"]) == (1.0, 3.0)


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path):
    file = tmp_path / metrics.FILE
    metrics.append(file, [step("a", 1, 1.0)])
    with file.open("a") as out:
        out.write('{"attempt": "a", "st')
    assert len(metrics.read(file)) == 1


def test_steps_that_were_rolled_back_count_no_more_and_are_no_attempt(tmp_path):
    file = tmp_path / metrics.FILE
    metrics.append(file, [{"attempt": "a", "resumed_from": 0}, *({"attempt": "a", "step": step} for step in range(1, 6))])
    metrics.append(file, [{"attempt": "a", "resumed_from": 2, "rolled_back": True}, {"attempt": "a", "step": 6}])
    assert [line["step"] for line in metrics.read(file)] == [1, 2, 6]
    assert len(metrics.attempts(file)) == 1
