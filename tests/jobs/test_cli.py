"""The command `ecgchat`: what it takes, what it says of bad input, and that nothing happens before all is well."""

import shutil

import pytest
import yaml

from ecgchat.text import load_tokenizer
from shards.dataset import ShardSet
from tests.jobs.conftest import contents

COCA = ("train", "coca")


pytestmark = pytest.mark.usefixtures("no_machine")


def write(file, settings):
    file.write_text(yaml.safe_dump(settings))
    return file


def assert_one_sentence(said, *pieces):
    assert said.status == 2, said
    assert said.out.strip() == ""
    [line] = said.err.strip().splitlines()
    assert line.startswith("ecgchat: ")
    for piece in pieces:
        assert piece in line


# --- what can be typed


def test_alone_it_prints_its_usage_as_an_error(ecgchat):
    said = ecgchat()
    assert (said.status, said.out) == (2, "")
    assert "usage: ecgchat COMMAND" in said.err


def test_help_lists_the_commands(ecgchat):
    said = ecgchat("--help")
    assert (said.status, said.err) == (0, "")
    for command in ("shards", "tokenizer", "train coca", "export", "eval", "submit"):
        assert f"ecgchat {command}" in said.out


@pytest.mark.parametrize("words", [("nonsense",), ("train",), ("train", "cocoa")])
def test_an_unknown_command_prints_the_usage_as_an_error(ecgchat, words):
    said = ecgchat(*words)
    assert (said.status, said.out) == (2, "")
    assert "ecgchat train coca" in said.err


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("shards", "simulate build verify inspect show"),
        ("shards simulate", "--out --records --seed --rates"),
        ("shards build", "ptb-xl mimic-iv-ecg chapman-shaoxing-ningbo sph cpsc2018 code-15 code-test code sami-trop wfdb"),
        (
            "shards build ptb-xl",
            "DIR --out --rate --records-per-shard --seed --max-rejected --workers --ray --english --measure --derive-leads",
        ),
        ("shards build code", "DIR --scale --leads"),
        ("shards build wfdb", "DIR --table --window-s --name"),
        ("shards build tnmg-json", "DIR"),
        ("shards verify", "URI"),
        ("shards inspect", "URI --out"),
        ("shards show", "URI KEY --out --all-leads"),
        ("tokenizer", "--shards --out --vocabulary --reports"),
        (
            "train coca",
            "--config --print_config --dry-run --profile --run.folder --data.shards --data.loader.order.global_batch "
            "--model.ecg.sampling_rate_hz --loss.caption --train.engine.zero_stage --launch.workers --share_text",
        ),
        ("export", "--run --out --step"),
        ("eval", "--model --shards --split --batch --out"),
        ("dashboard", "RUN --html --wandb --entity"),
        ("runs sync", "--out --online"),
        ("submit", "ray"),
        ("submit ray", "--address --working-dir --nodes --gpus-per-node --dry-run --resubmit --env"),
    ],
)
def test_the_help_of_each_command_names_its_arguments(ecgchat, command, arguments):
    said = ecgchat(*command.split(), "--help")
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith(f"usage: ecgchat {command}")
    for argument in arguments.split():
        assert argument in said.out


@pytest.mark.parametrize("words", [("shards",), ("shards", "buidl"), ("shards", "verify"), ("submit",)])
def test_a_tool_without_what_it_needs_prints_its_usage_as_an_error(ecgchat, words):
    said = ecgchat(*words)
    assert (said.status, said.out) == (2, "")
    assert f"usage: ecgchat {words[0]}" in said.err


# --- settings


def test_a_printed_configuration_gives_the_same_settings(ecgchat, job, tmp_path):
    printed = ecgchat(*COCA, "--config", job, "--print_config")
    assert printed.status == 0
    saved = tmp_path / "printed.yaml"
    saved.write_text(printed.out)
    again = ecgchat(*COCA, "--config", saved, "--print_config")
    assert yaml.safe_load(again.out) == yaml.safe_load(printed.out)
    assert yaml.safe_load(printed.out)["model"]["ecg"] == yaml.safe_load(job.read_text())["model"]["ecg"]
    assert ecgchat(*COCA, "--config", saved, "--dry-run").out == ecgchat(*COCA, "--config", job, "--dry-run").out


@pytest.mark.parametrize(
    "order",
    ["file first", pytest.param("file last")],
)
def test_the_command_line_goes_before_the_file_and_the_file_before_the_default(ecgchat, job, order):
    words = [("--config", job), ("--train.steps", "9")]
    first, second = words if order == "file first" else reversed(words)
    train = yaml.safe_load(ecgchat(*COCA, *first, *second, "--print_config").out)["train"]
    assert train["steps"] == 9
    assert train["optimizer"]["learning_rate"] == 1e-3
    assert train["seed"] == 0


# --- bad settings


@pytest.mark.parametrize(
    ("overrides", "pieces"),
    [
        pytest.param(("--train.stepz", "3"), ("train.stepz: no such setting", "did you mean train.steps?"), id="unknown key"),
        pytest.param(
            ("--train.optimizer.learning_rate_hz", "3"),
            ("learning_rate_hz: no such setting", "did you mean train.optimizer.learning_rate?"),
            id="unknown nested key",
        ),
        pytest.param(
            ("--train.optimizer.learning_rat", "3"),
            ("train.optimizer.learning_rat: no such setting", "did you mean train.optimizer.learning_rate?"),
            id="cut key",
        ),
        pytest.param(("--train.steps", "many"), ("train.steps", "int", "many"), id="wrong type"),
        pytest.param(("--train.engine.precision", "fp8"), ("train.engine.precision", "bf16", "fp8"), id="unknown choice"),
        pytest.param(("--config", "absent.yaml"), ("config", "does not exist", "absent.yaml"), id="no such file"),
        pytest.param(
            ("--train.engine.gradient_accumulation", "2"),
            ("train.engine.gradient_accumulation 2", "set it to 1"),
            id="accumulation",
        ),
        pytest.param(
            ("--model.ecg.sampling_rate_hz", "500"),
            ("sampled at 100 Hz, stage coca takes 500 Hz", "--rate", "model.ecg.sampling_rate_hz"),
            id="other sampling rate",
        ),
        pytest.param(
            ("--data.shards", "/nowhere/set"), ("file:///nowhere/set: no manifest.json", "shards build"), id="no data set"
        ),
        pytest.param(("--data.shards", "nope://b/set"), ("scheme 'nope' is not available", "s3://"), id="unknown scheme"),
        pytest.param(("--data.shards", "s3://"), ("expected a bucket",), id="no bucket"),
        pytest.param(("--data.validation_split", "dev"), ("split 'dev' is empty (found test", "train"), id="empty split"),
        pytest.param(("--data.loader.order.global_batch", "0"), ("global_batch: expected at least 1, found 0",), id="no batch"),
        pytest.param(
            ("--data.loader.order.global_batch", "5000", "--dry-run"),
            ("96 samples do not fill one global batch of 5000", "global_batch to 96 or less"),
            id="batch larger than the data, dry run",
        ),
        pytest.param(
            ("--data.loader.order.global_batch", "5000"),
            ("96 samples do not fill one global batch of 5000", "global_batch to 96 or less"),
            id="batch larger than the data",
        ),
        pytest.param(
            ("--data.tokenizer", "/nowhere/tokenizer"),
            ("/nowhere/tokenizer", "tokenizer"),
            id="no tokenizer",
        ),
        pytest.param(
            ("--data.tokenizer", "file:///nowhere/tokenizer"), ("expected a folder with files",), id="no tokenizer URI"
        ),
        pytest.param(
            ("--launch.workers", "2"),
            ("launch.workers 2", "torchrun --nproc-per-node 2", "RAY_ADDRESS", "launch.workers 1"),
            id="two workers without a launcher",
        ),
        pytest.param(
            ("--launch.workers", "0", "--dry-run"),
            ("launch.workers", "at least 1"),
            id="no worker",
        ),
        *[
            pytest.param(
                ("--train.steps", steps, "--dry-run"),
                ("train.steps", "at least 1"),
                id=f"{steps} steps",
            )
            for steps in ("0", "-1")
        ],
        pytest.param(("--model.ecg.heads", "5"), ("model.ecg.heads 5 does not divide model.ecg.width 32",), id="ECG heads"),
        *[
            pytest.param(
                (f"--model.{tower}.heads", "5", "--dry-run"),
                (f"model.{tower}.heads 5 does not divide",),
                id=f"{tower} heads",
            )
            for tower in ("text", "decoder")
        ],
        *[
            pytest.param(
                (f"--{key}", "0", "--dry-run"),
                (key, "at least 1"),
                id=f"{key} 0",
            )
            for key in (
                "train.eval_every",
                "train.checkpoint.every_steps",
                "train.tracking.log_every",
                "data.loader.connections",
            )
        ],
        pytest.param(
            ("--run.folder", "nope://runs/demo", "--dry-run"),
            ("scheme 'nope' is not available",),
            id="run folder of an unknown scheme",
        ),
    ],
)
def test_a_bad_setting_is_one_sentence_and_nothing_is_written(ecgchat, job, tmp_path, overrides, pieces):
    before = contents(tmp_path)
    assert_one_sentence(ecgchat(*COCA, "--config", job, *overrides), *pieces)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("settings", "pieces"),
    [
        ({"train": {"stepz": 3}}, ("train.stepz: no such setting", "did you mean train.steps?")),
        (
            {"train": {"optimizer": {"learning_rat": 3}}},
            ("train.optimizer.learning_rat: no such setting", "did you mean train.optimizer.learning_rate?"),
        ),
        pytest.param(
            {"trian": {"steps": 3}},
            ("trian.steps: no such setting", "did you mean train.steps?"),
        ),
        ({"train": {"steps": "many"}}, ("train.steps", "int", "many")),
    ],
)
def test_a_bad_setting_in_the_file_is_one_sentence_too(ecgchat, job, tmp_path, settings, pieces):
    bad = write(tmp_path / "bad.yaml", settings)
    assert_one_sentence(ecgchat(*COCA, "--config", job, "--config", bad), *pieces)


@pytest.mark.parametrize("text", ["train: {steps: [", "- a list", "a sentence"])
def test_a_file_that_is_no_mapping_is_one_sentence(ecgchat, tmp_path, text):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    assert_one_sentence(ecgchat(*COCA, "--config", file), "config")


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("train coca", ("run.folder", "data.shards", "data.tokenizer")),
        ("tokenizer", ("shards", "out")),
        ("export", ("run", "out")),
        ("eval", ("model", "shards")),
    ],
)
def test_every_missing_setting_is_named_at_once(ecgchat, command, missing):
    assert_one_sentence(ecgchat(*command.split()), "are required: " + ", ".join(missing))


@pytest.mark.slow
def test_wrong_keys_of_a_store_are_named_and_not_told(ecgchat, job, s3, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    said = ecgchat(*COCA, "--config", job, "--data.shards", f"{s3}/set")
    assert_one_sentence(said, f"{s3}/set/manifest.json: the store refused the request", "check AWS_ACCESS_KEY_ID")
    assert "not-the-secret" not in said.err


# --- the dry run


def test_a_dry_run_says_what_would_be_done_and_leaves_nothing(ecgchat, job, tmp_path):
    before = contents(tmp_path)
    said = ecgchat(*COCA, "--config", job, "--dry-run")
    assert (said.status, said.err) == (0, "")
    for fact in (
        "data │ file://",
        "simulated-ptb-xl, 100 Hz",
        "train 96, validation",
        "12 samples over 1 workers: 12 each",
        "4, 8 an epoch, 0.5 epochs",
        "GiB a rank (ZeRO-2, fp32)",
        "activations │ about",
        "nothing was started",
    ):
        assert fact in said.text
    assert contents(tmp_path) == before
    assert not (tmp_path / "run").exists()


def test_a_dry_run_divides_the_batch_by_any_number_of_workers(ecgchat, job):
    said = ecgchat(*COCA, "--config", job, "--dry-run", "--launch.workers", "5")
    assert said.status == 0
    assert "12 samples over 5 workers: 2 or 3 each" in said.text


def test_a_command_that_takes_dry_run_keeps_it(ecgchat, simulated_shards, tmp_path):
    ecgchat("tokenizer", "--shards", simulated_shards, "--out", tmp_path / "tokenizer", "--dry-run")
    assert not (tmp_path / "tokenizer").exists()


# --- shards


@pytest.fixture
def corpus(ecgchat, tmp_path):
    """Twelve simulated records at 100 Hz."""
    said = ecgchat("shards", "simulate", "--out", tmp_path / "corpus", "--records", 12, "--rates", 100)
    assert said.status == 0, said.err
    return tmp_path / "corpus"


@pytest.fixture
def data(ecgchat, corpus, tmp_path):
    """The same as a data set, built by the command."""
    said = build(ecgchat, corpus, tmp_path / "set")
    assert said.status == 0, said.err
    return tmp_path / "set"


def build(ecgchat, corpus, out, *options):
    words = ("--rate", 100, "--records-per-shard", 4, "--workers", 0)
    return ecgchat("shards", "build", "ptb-xl", corpus, "--out", out, *words, *options)


def test_a_simulated_corpus_becomes_a_data_set_that_verifies(ecgchat, corpus, tmp_path):
    built = build(ecgchat, corpus, tmp_path / "set")
    assert "12 records of" in built.text
    assert "0 absent, 0 rejected" in built.text
    shards = len(ShardSet.open(str(tmp_path / "set")).manifest["shards"])
    verified = ecgchat("shards", "verify", tmp_path / "set")
    assert (verified.status, verified.text) == (0, f"12 records in {shards} shards are what the manifest says")


def test_a_changed_byte_is_found_and_its_shard_named(ecgchat, data):
    shard = min(data.glob("*.tar"))
    body = bytearray(shard.read_bytes())
    body[3000] ^= 1
    shard.write_bytes(body)
    (data / max(path.name for path in data.glob("*.tar"))).unlink()
    said = ecgchat("shards", "verify", data)
    assert said.status == 1
    assert said.text.count("✗") == 2
    assert f"{shard.name}:" in said.out.replace("\n", "")
    assert "whose sha256 is not the manifest's" in said.text
    assert "no such object" in said.text


def test_the_name_of_a_shard_is_not_broken_over_lines(ecgchat, data):
    shard = min(data.glob("*.tar"))
    shard.write_bytes(b"")
    assert str(shard) in ecgchat("shards", "verify", data).out


def test_inspect_says_what_a_data_set_holds(ecgchat, data):
    said = ecgchat("shards", "inspect", data)
    assert said.status == 0
    for fact in ("simulated-ptb-xl (simulated)", "12 of", "100 Hz", "train", "peak_mv", "label", "%"):
        assert fact in said.text


def test_show_writes_a_picture(ecgchat, data, tmp_path):
    said = ecgchat("shards", "show", data, "simulated-ptb-xl-3", "--out", tmp_path / "ecg.png")
    assert said.status == 0
    assert (tmp_path / "ecg.png").read_bytes().startswith(b"\x89PNG")


def test_show_draws_in_the_terminal_under_the_report(ecgchat, data):
    _, _, record = ShardSet.open(str(data)).sample("simulated-ptb-xl-3")
    one = ecgchat("shards", "show", data, "simulated-ptb-xl-3")
    assert one.text.startswith(f"simulated-ptb-xl-3 {record['report']}")
    assert "mV" in one.out
    assert any("\u2801" <= letter <= "\u28ff" for letter in one.out)
    assert "aVR" not in one.out
    assert "aVR" in ecgchat("shards", "show", data, "simulated-ptb-xl-3", "--all-leads").out


def test_an_unknown_key_is_named_with_one_that_is_there(ecgchat, data):
    assert_one_sentence(
        ecgchat("shards", "show", data, "simulated-17"), "no sample 'simulated-17'", "keys look like simulated-ptb-xl-"
    )


def test_a_picture_for_a_folder_that_is_absent_is_one_sentence(ecgchat, data, tmp_path):
    assert_one_sentence(
        ecgchat("shards", "show", data, "simulated-ptb-xl-3", "--out", tmp_path / "absent" / "ecg.png"), "ecg.png"
    )


def test_simulate_leaves_a_folder_of_others_alone(ecgchat, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    before = contents(tmp_path)
    assert_one_sentence(
        ecgchat("shards", "simulate", "--out", tmp_path, "--records", 3), str(tmp_path), "expected an empty folder"
    )
    assert contents(tmp_path) == before


@pytest.mark.parametrize("records", ["0", "-3"])
def test_simulate_refuses_to_make_nothing(ecgchat, tmp_path, records):
    assert_one_sentence(ecgchat("shards", "simulate", "--out", tmp_path / "none", "--records", records), "at least 1 record")


@pytest.mark.parametrize("missing", ["ptbxl_database.csv", "scp_statements.csv"])
def test_a_folder_without_the_tables_of_ptb_xl_is_refused_by_their_name(ecgchat, corpus, tmp_path, missing):
    (corpus / missing).unlink()
    assert_one_sentence(build(ecgchat, corpus, tmp_path / "set"), f"{missing}: no such file", "check DIR")
    assert not (tmp_path / "set").exists()


def test_a_rate_that_the_folder_does_not_hold_is_refused(ecgchat, corpus, tmp_path):
    assert_one_sentence(build(ecgchat, corpus, tmp_path / "set", "--rate", 500), "none of the 12 rows has its files", "--rate")
    assert_one_sentence(build(ecgchat, corpus, tmp_path / "set", "--rate", 5), "--rate 5: expected a sampling rate from 25")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--max-rejected", "2", "expected a fraction from 0 to 1"),
        ("--records-per-shard", "0", "expected at least 1"),
        pytest.param("--workers", "-1", "expected a number of processes"),
    ],
)
def test_an_option_out_of_range_is_refused(ecgchat, corpus, tmp_path, option, value, expected):
    assert_one_sentence(build(ecgchat, corpus, tmp_path / "set", option, value), option, expected)
    assert not (tmp_path / "set").exists()


def test_a_data_set_is_not_written_over(ecgchat, corpus, data):
    before = contents(data)
    assert_one_sentence(build(ecgchat, corpus, data), "holds a data set already")
    assert contents(data) == before


def test_damaged_records_are_listed_and_within_the_tolerance_left_out(ecgchat, corpus, tmp_path):
    signal = min((corpus / "records100").rglob("*.dat"))
    signal.write_bytes(signal.read_bytes()[:100])
    refused = build(ecgchat, corpus, tmp_path / "strict")
    assert refused.status == 2
    assert f"{signal.name}: expected" in refused.err
    said = build(ecgchat, corpus, tmp_path / "set", "--max-rejected", "0.1")
    assert said.status == 0
    assert "1 rejected (listed in manifest.json)" in said.text


@pytest.mark.parametrize("tool", ["verify", "inspect"])
def test_a_place_without_a_data_set_is_named(ecgchat, tmp_path, tool):
    assert_one_sentence(ecgchat("shards", tool, tmp_path / "set"), f"{tmp_path}/set: no manifest.json", "shards build")


# --- tokenizer, export, eval


def test_the_tokenizer_of_a_data_set_reads_its_reports(ecgchat, simulated_shards, tmp_path):
    said = ecgchat("tokenizer", "--shards", simulated_shards, "--out", tmp_path / "tokenizer", "--vocabulary", 400)
    assert said.status == 0, said.err
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"))
    assert said.text == f"{len(tokenizer)} tokens in {tmp_path}/tokenizer"
    data = ShardSet.open(simulated_shards).select("train")
    _, _, record = data.sample(data.index["key"][0].as_py())
    ids = tokenizer(record["report"])["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).split()[0] == record["report"].lower().split()[0]


def test_a_tokenizer_needs_a_data_set(ecgchat, tmp_path):
    said = ecgchat("tokenizer", "--shards", tmp_path / "set", "--out", tmp_path / "tokenizer")
    assert_one_sentence(said, "no manifest.json")
    assert not (tmp_path / "tokenizer").exists()


def test_a_run_that_is_none_is_not_exported(ecgchat, tmp_path):
    assert_one_sentence(ecgchat("export", tmp_path / "run", "--out", tmp_path / "export"), "run: no committed checkpoint")
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("kind", ["absent", "another"])
def test_a_folder_without_a_model_is_not_evaluated(ecgchat, simulated_shards, tokenizer_folder, tmp_path, kind):
    folder = tmp_path / "model"
    if kind == "another":
        shutil.copytree(tokenizer_folder, folder)
    assert_one_sentence(ecgchat("eval", folder, "--shards", simulated_shards), str(folder))
