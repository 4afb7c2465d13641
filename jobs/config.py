"""Typed settings from YAML and dotted overrides, for every job alike.

    python -m jobs.coca --config jobs/configs/coca/demo.yaml --train.optimizer.learning_rate 3e-4 --print_config

Precedence: the dataclass's default < the YAML file < the command line.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import re
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from cluster.errors import RunError
from shards.storage import Store

# What stands under a setting in its dataclass is what --help says of it.
set_parsing_settings(docstring_parse_attribute_docstrings=True)

J = TypeVar("J")

DRY_RUN = "--dry-run"
PROFILE = "--profile"

UNKNOWN = (
    r"unrecognized arguments: --([\w.\-]+)",
    r"does not accept option '([\w.]+)'",
    r"Option '([\w.]+)' is not accepted",
)
"""Ways in which the parser says that it does not know a key."""


class ConfigError(ValueError):
    """Settings that cannot be: one sentence with the key, what was expected and what was found."""


@dataclass(frozen=True)
class RunConfig:
    """What a run is called and where it is kept."""

    folder: str
    """URI of the run's folder: checkpoints, metrics, configuration. The same folder resumes the run."""
    name: str = "run"


@dataclass(frozen=True)
class Request(Generic[J]):
    """What a command line asks for."""

    job: J
    dry_run: bool


def parse(kind: type[J], arguments: Sequence[str] | None, prog: str) -> J:
    """A job's settings from a command line.

    Raises:
        ConfigError: an unknown key, a value of the wrong kind, or a missing one; nothing has been started.
    """
    return _parse(_parser(kind, prog), kind, list(sys.argv[1:] if arguments is None else arguments))


def parse_with_dry_run(kind: type[J], arguments: Sequence[str] | None, prog: str) -> Request[J]:
    """The same for a job that can say what it would do: `--dry-run` is a word to the command and no setting."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(kind, prog)
    parser.epilog = (
        "--dry-run: check settings, data, batch and memory; take no machine. "
        "--profile steps=10-20: a trace of these steps, in the run's folder"
    )
    return Request(_parse(parser, kind, [word for word in words if word != DRY_RUN]), DRY_RUN in words)


def from_settings(kind: type[J], settings: dict[str, Any]) -> J:
    """A job from the nested dictionary that `dataclasses.asdict` made of it."""
    parser = _parser(kind, kind.__name__)
    # The parser puts objects of its own into the lists that it is given.
    return _instantiate(parser, kind, _checked(parser, kind, lambda: parser.parse_object(deepcopy(settings))))


def _parse(parser: ArgumentParser, kind: type[J], words: list[str]) -> J:
    return _instantiate(parser, kind, _checked(parser, kind, lambda: parser.parse_args(_file_first(_profile_last(words)))))


def _profile_last(words: list[str]) -> list[str]:
    """`--profile steps=10-20` as the setting that it stands for, `--train.profile.steps 10-20`."""
    kept: list[str] = []
    profile: list[str] = []
    waiting = iter(words)
    for word in waiting:
        option, _, value = word.partition("=")
        if option != PROFILE:
            kept.append(word)
            continue
        key, _, wanted = (value or next(waiting, "")).partition("=")
        profile += [f"--train.profile.{key}", wanted]
    return kept + profile


def _file_first(words: list[str]) -> list[str]:
    """`--config FILE` before everything else, since the parser lets the later one win."""
    first: list[str] = []
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if word == "--config":
            first += [word, *map(_settings_file, itertools.islice(waiting, 1))]
        elif word.startswith("--config="):
            first += ["--config", _settings_file(word.partition("=")[2])]
        else:
            rest.append(word)
    return first + rest


def _settings_file(place: str) -> str:
    """A file's path as it is; from a store its content, which the parser takes as well."""
    if "://" not in place:
        return place
    folder, _, name = place.rpartition("/")
    return Store(folder).get(name).decode()


def _parser(kind: type[J], prog: str) -> ArgumentParser:
    description = (kind.__doc__ or "").split("\n")[0]
    # A shortened key would be taken for the one key that begins so: a typing error must not train.
    parser = ArgumentParser(prog=prog, description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with settings, or its URI")
    parser.add_class_arguments(kind, nested_key=None)
    return parser


def _instantiate(parser: ArgumentParser, kind: type[J], namespace: Namespace) -> J:
    namespace.pop("config", None)
    try:
        return kind(**vars(parser.instantiate(namespace)))
    except (ValueError, TypeError, RunError) as error:
        raise ConfigError(_one_line(str(error))) from error


def _checked(parser: ArgumentParser, kind: type[Any], parsing: Any) -> Namespace:
    try:
        namespace: Namespace = parsing()
    except (argparse.ArgumentError, ValueError, TypeError) as error:
        raise ConfigError(_advice(_one_line(str(error)), parser)) from error
    return namespace


def _advice(message: str, parser: ArgumentParser) -> str:
    """The parser's message, with the known key that is nearest to an unknown one."""
    known = [action.dest for action in parser._actions if "." in action.dest or action.dest.isidentifier()]
    unknown = next((found for pattern in UNKNOWN if (found := re.search(pattern, message))), None)
    if unknown is None:
        return f"{message}; run with --help for every setting, or --print_config for the values in force"
    group = re.search(r"Group '([\w.]+)'", message)
    name = f"{group.group(1)}.{unknown.group(1)}" if group else unknown.group(1)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f"{name}: no such setting; {hint}Run with --help for every setting"


def _one_line(message: str) -> str:
    return " ".join(message.split())
