"""`python -m tests.lab.alive` on a machine of a Ray cluster: the addresses of its living nodes."""

import json

import ray


def main() -> None:
    """Print them as a JSON list."""
    ray.init(address="auto", log_to_driver=False, configure_logging=False)
    print(json.dumps(sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])))


if __name__ == "__main__":
    main()
