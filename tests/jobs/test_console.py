"""What a shard tool says while it works, where nobody watches a bar."""

import pytest

from jobs.shards import console


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_half_minute_with_count_rate_and_time_left(clock, capsys):
    with console.progress_bar() as bar:
        task = bar.add_task("building shards, records", total=10_000)
        advance = console.advancing(bar, task)
        for second in (10, 20, 31, 40, 62):
            clock[0] = float(second)
            advance(500)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["building shards", "building shards"]
    assert lines[0].startswith("building shards, records: 1,500 of 10,000")
    assert lines[1].startswith("building shards, records: 2,500 of 10,000")
    assert "/s, " in lines[1]
    assert "min left" in lines[1]
