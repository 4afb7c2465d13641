"""Build and load DeepSpeed's own code, in a process that may fail: `python -m cluster.doctor.build` prints what there is."""

from __future__ import annotations

import contextlib
import json
import os
import sys

from cluster.launch import precompile


def main() -> None:
    """Compile where that was not done; print a JSON object."""
    with contextlib.redirect_stdout(sys.stderr):
        import torch

        precompile.main()
    where = os.environ.get("TORCH_EXTENSIONS_DIR", "torch's cache")
    found = "none is needed on a GPU" if torch.cuda.is_available() else f"CPU collectives load from {where}"
    print(json.dumps({"found": found}))


if __name__ == "__main__":
    main()
