"""What Ray packs of the project's folder, by its own packager: all code that a job imports, and no run."""

import zipfile

from ray._private.runtime_env.packaging import create_package

from cluster.launch.ray_jobs import EXCLUDED


def test_the_packed_folder_holds_the_code_and_no_run(tmp_path):
    folder = tmp_path / "project"
    for name in ("jobs/runs/state.py", "jobs/coca.py", "runs/first/metrics.jsonl", "build/x.py", ".venv/bin/python"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("text")
    create_package(str(folder), tmp_path / "package.zip", include_gitignore=True, excludes=list(EXCLUDED))
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        assert {name for name in package.namelist() if not name.endswith("/")} == {"jobs/coca.py", "jobs/runs/state.py"}
