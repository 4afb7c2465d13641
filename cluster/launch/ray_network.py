"""The network that ranks under Ray talk over.

Gloo takes the address that the machine's own name stands for, which on Debian is loopback (127.0.1.1): ranks of two machines
never meet then. They are to use the interface that Ray uses. NCCL finds its interfaces by itself.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import psutil
from ray.exceptions import RayActorError
from ray.train.torch.config import TorchConfig, _TorchBackend


class NodeNetworkConfig(TorchConfig):
    """Ray's, whose process group lies on the network of the Ray nodes."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """What starts the process group."""
        return _NodeNetworkBackend


class _NodeNetworkBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(choose_interface)
        super().on_start(worker_group, backend_config)

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        # Workers that are gone have no process group to leave, and Ray would print a trace of each.
        with suppress(RayActorError):
            super().on_shutdown(worker_group, backend_config)


def choose_interface() -> None:
    """Let gloo use the interface that has this Ray node's address, unless somebody chose one."""
    import ray

    interface = interface_of(ray.util.get_node_ip_address())
    if interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def interface_of(address: str) -> str | None:
    """The name of this machine's network interface with an address; None where none has it."""
    found = psutil.net_if_addrs().items()
    return next((name for name, addresses in found if any(one.address == address for one in addresses)), None)
