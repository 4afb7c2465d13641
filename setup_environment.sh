#!/usr/bin/env bash
# Make the virtual environment of this project: ./setup_environment.sh [FOLDER]
# Every version is pinned in constraints.txt. What a compiler is needed for is checked before anything is installed.
set -euo pipefail
cd "$(dirname "$0")"
venv="${1:-.venv}"
python="${PYTHON:-python3.11}"
extras="${EXTRAS-[dev]}" # empty: what training needs and no more

fail() { echo "set-up: $1" >&2; exit 2; }

command -v "$python" >/dev/null || fail "$python not found; install Python 3.11 or 3.12, or name one: make PYTHON=python3.12 …"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
    || fail "$python is $("$python" -V 2>&1); Python 3.11 or 3.12 is needed: make PYTHON=python3.12 …"
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "$python has no venv; install it (Debian: python3-venv)"
for tool in c++ make; do
    command -v "$tool" >/dev/null || fail "$tool not found: DeepSpeed compiles its CPU collectives; install a C++ compiler and make (Debian: g++ make)"
done
header="$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h"
[ -f "$header" ] || fail "$header not found: DeepSpeed compiles against it; install Python's headers (Debian: python3-dev)"

echo "set-up: $venv with $("$python" -V)"
"$python" -m venv --clear "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
pip install --constraint constraints.txt pip setuptools wheel ninja
# torch first: DeepSpeed's own set-up imports it.
pip install --constraint constraints.txt torch numpy
pip install --constraint constraints.txt --no-build-isolation deepspeed
pip install --constraint constraints.txt --no-build-isolation --editable ".$extras"
# Compiled here once, and not at the start of the first run.
echo "set-up: compiling DeepSpeed's CPU collectives"
"$venv/bin/python" -m cluster.launch.precompile
touch "$venv/.complete"
echo "set-up: done"
