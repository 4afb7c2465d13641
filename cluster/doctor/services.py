"""W&B: whether a run would be followed there, and whether it is there."""

from __future__ import annotations

import base64
import json
import netrc
import os
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from cluster.doctor.findings import Finding, fail, in_one_line, ok, warn

TIMEOUT_S = 10.0
OFFLINE = "runs are written offline into their folder; 'ecgchat runs sync RUN --online' sends them later"
VIEWER = json.dumps({"query": "query { viewer { username } }"}).encode()


def wandb() -> list[Finding]:
    """The host, the key, and both together. The key itself is never said."""
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rstrip("/")
    key = os.environ.get("WANDB_API_KEY", "")
    if not key:
        also = f"; a key of ~/.netrc for {urlsplit(host).hostname} is used by wandb alone" if _in_netrc(host) else ""
        return [ok("W&B", f"WANDB_API_KEY is not set: {OFFLINE}{also}")]
    mode = os.environ.get("WANDB_MODE", "online")
    if mode in ("offline", "disabled"):
        return [ok("W&B", f"WANDB_MODE is {mode}; WANDB_API_KEY is set")]
    offline = "without a way there from the workers, set train.tracking.wandb to offline"
    request = urllib.request.Request(f"{host}/graphql", data=VIEWER, headers={"Content-Type": "application/json"})
    request.add_header("Authorization", "Basic " + base64.b64encode(f"api:{key}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            viewer = (json.loads(reply.read()).get("data") or {}).get("viewer")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return [fail("W&B", f"{host} refuses WANDB_API_KEY ({error.code})", f"take a new one from {host}/authorize")]
        return [warn("W&B", f"{host} answers {error.code}", offline)]
    except (OSError, ValueError) as error:
        return [fail("W&B", f"WANDB_API_KEY is set, and {host} does not answer ({in_one_line(error)})", offline)]
    if not viewer:
        return [fail("W&B", f"{host} does not know WANDB_API_KEY", f"take a new one from {host}/authorize")]
    return [ok("W&B", f"{host} knows WANDB_API_KEY")]


def _in_netrc(host: str) -> bool:
    try:
        return netrc.netrc().authenticators(urlsplit(host).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
