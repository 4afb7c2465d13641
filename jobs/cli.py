"""The command `ecgchat`: one word for each thing that is done.

ecgchat shards simulate|build|conversations|lengths|verify|inspect|show …
ecgchat tokenizer --shards URI --out URI
ecgchat llm --conversations URI,URI --out URI
ecgchat train coca|align|instruct --config jobs/configs/coca/demo.yaml …
ecgchat export RUN --out URI
ecgchat eval EXPORT --shards URI
ecgchat chat EXPORT --ecg RECORD
ecgchat dashboard RUN --html FILE
ecgchat runs list|show|stop|resume|sync …
ecgchat doctor --store URI --launcher ray|slurm
ecgchat submit ray|slurm|kubernetes coca|align|instruct --config … --nodes 2 --gpus-per-node 8
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import partial

from jobs.errors import one_sentence

COMMANDS = {
    ("shards",): ("jobs.shards", "make, check and look at shards"),
    ("tokenizer",): ("jobs.tokenizer", "make a tokenizer from a data set's reports"),
    ("llm",): ("jobs.llm", "make a small LLM from the conversations of training patients"),
    ("train", "coca"): ("jobs.coca", "train ECG-CoCa"),
    ("train", "align"): ("jobs.align", "train the projector from ECG tokens into a frozen LLM"),
    ("train", "instruct"): ("jobs.instruct", "train adapters of the LLM on conversations"),
    ("export",): ("jobs.export", "write a run's model as a plain folder"),
    ("eval",): ("jobs.eval", "evaluate an exported model"),
    ("chat",): ("jobs.chat", "talk about one ECG in the terminal"),
    ("dashboard",): ("jobs.dashboard", "draw the numbers of runs: a local page, or a workspace at W&B"),
    ("runs",): ("jobs.runs", "list, show, stop, resume and sync runs"),
    ("submit",): ("jobs.submit", "send a stage or a command to a cluster and follow it"),
    ("doctor",): ("jobs.doctor", "check machine, store, W&B, Slurm and Ray before a run relies on them"),
}
"""Words on the command line → module with `main(arguments)`, imported only when it is asked for."""

POSITIONAL = {("export",): "run", ("eval",): "model", ("chat",): "model"}
"""Settings that may stand without their name, as the first argument."""


def usage() -> str:
    """What can be typed."""
    lines = [f"  ecgchat {' '.join(words):<14} {about}" for words, (_, about) in COMMANDS.items()]
    return "\n".join(["usage: ecgchat COMMAND …", "", *lines, "", "'ecgchat COMMAND --help' says what a command takes."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for command, (module, _) in COMMANDS.items():
        if tuple(words[: len(command)]) == command:
            rest = words[len(command) :]
            if command in POSITIONAL and rest and not rest[0].startswith("-"):
                rest[:1] = [f"--{POSITIONAL[command]}", rest[0]]
            return one_sentence(partial(_run, module, rest))
    asked_for_help = words in (["--help"], ["-h"])
    print(usage(), file=sys.stdout if asked_for_help else sys.stderr)
    return 0 if asked_for_help else 2


def _run(module: str, arguments: list[str]) -> int | None:
    status: int | None = importlib.import_module(module).main(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
