#!/usr/bin/env bash
# Make a virtual environment with the loaders that ours is measured against: bash jobs/bench/peers.sh FOLDER
# It is not ours: Mosaic Streaming takes numpy below 2.2 and transformers below 5. torch, webdataset and wfdb are the same as ours.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: bash jobs/bench/peers.sh FOLDER" >&2; exit 2; }
constraints="$(cd "$(dirname "$0")/../.." && pwd)/constraints.txt"
same_as_ours="$(grep -E '^(torch|webdataset|wfdb)==' "$constraints")"

"${PYTHON:-python3.11}" -m venv --clear "$1"
# shellcheck disable=SC2086 # one word for each package
"$1/bin/python" -m pip --disable-pip-version-check --quiet install $same_as_ours torchvision mosaicml-streaming==0.13.0 litdata==0.2.76
echo "peers: python -m jobs.bench.loader --peers $1/bin/python"
