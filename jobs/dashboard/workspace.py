"""The same sections as a workspace of W&B, through wandb-workspaces."""

from __future__ import annotations

from typing import Any

from cluster.errors import RunError
from cluster.wandb_run import EXAMPLES
from jobs.dashboard.page import Run
from jobs.dashboard.sections import PICTURES, SECTIONS

NAME = "ecgchat"


def build(entity: str, project: str, runs: list[Run]) -> Any:
    """The workspace, not saved yet.

    Raises:
        RunError: the package is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise RunError("--wandb: wandb-workspaces is not installed; pip install -c constraints.txt '.[dashboard]'") from error
    known = sorted({name for run in runs for line in run.lines for name in line if "/" in name})
    sections = []
    for section in SECTIONS:
        measures = {name: (title, panel) for panel in reversed(section.panels) for name, title in panel.measures(known).items()}
        plots = [
            panels.LinePlot(title=title, x="samples", y=[name], log_y=panel.scale == "log")
            for name, (title, panel) in sorted(measures.items())
        ]
        if plots:
            sections.append(workspaces.Section(name=section.name, panels=plots, is_open=True))
    media = panels.MediaBrowser(media_keys=[EXAMPLES])
    sections.append(workspaces.Section(name=PICTURES, panels=[media], is_open=True))
    return workspaces.Workspace(name=NAME, entity=entity, project=project, sections=sections)


def save(entity: str | None, project: str, runs: list[Run]) -> str:
    """Create the workspace at W&B.

    Returns:
        Its address.

    Raises:
        RunError: W&B cannot be reached, or refuses.
    """
    import wandb

    try:
        workspace = build(entity or wandb.Api().default_entity, project, runs)
        workspace.save()
    except RunError:
        raise
    except Exception as error:
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise RunError(
            f"--wandb: the workspace could not be saved ({cause}); set WANDB_API_KEY, WANDB_BASE_URL for a server of your own, "
            "and --entity for a team's"
        ) from error
    return str(workspace.url)
