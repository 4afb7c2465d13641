"""What counts as a key, and where its value never stands."""

import pytest

from cluster.keys import is_secret, without_secrets


@pytest.mark.parametrize(
    "name",
    [
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "WANDB_API_KEY", "HF_TOKEN", "my_password"),
        *("DB_PASS", "AZURE_STORAGE_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN"),
    ],
)
def test_a_key_is_known_by_the_name_of_its_variable(name):
    assert is_secret(name)


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN_PATH", "TOKENIZERS_PARALLELISM", "AWS_ENDPOINT_URL", "KEYBOARD", "MONKEY"])
def test_a_place_or_a_setting_is_no_key(name):
    assert not is_secret(name)


def test_its_value_is_replaced_by_that_name_even_where_one_value_stands_in_another(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "0123456789")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    assert without_secrets("401 for 0123456789abcdef and 0123456789") == "401 for <WANDB_API_KEY> and <HF_TOKEN>"


@pytest.mark.parametrize("name", ["API_KEY_2", "GITHUB_TOKENS", "AWS_SHARED_CREDENTIALS_FILE"])
def test_what_only_may_be_a_key_is_hidden_too(monkeypatch, name):
    monkeypatch.setenv(name, "0123456789")
    assert without_secrets("0123456789") == f"<{name}>"
