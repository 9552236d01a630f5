"""`k2d sweep`: remove what killed processes left unfinished in the store."""

from k2d.cli import show
from k2d.cli.base import STORING, app, settings
from k2d.wording import counted


@app.command(rich_help_panel=STORING)
def sweep() -> None:
    """Remove unfinished files that killed processes left in a local store (K2D_STORE), if they are older than a day."""
    from k2d.store import Lake

    show.out.print(f"{counted(Lake(settings().store).sweep(), 'unfinished file')} removed")
