"""Compile what DeepSpeed would compile at the start of the first run on CPUs.

python -m cluster.launch.precompile
"""

from __future__ import annotations

from cluster.launch.process import prepare_libraries


def main() -> None:
    """Build DeepSpeed's shared-memory collectives into torch's cache of extensions; nothing to do on a GPU."""
    import torch

    if torch.cuda.is_available():
        return
    prepare_libraries()
    # Importing DeepSpeed first settles its accelerator, which the builder asks for.
    import deepspeed
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    del deepspeed
    ShareMemCommBuilder().load(verbose=False)


if __name__ == "__main__":
    main()
