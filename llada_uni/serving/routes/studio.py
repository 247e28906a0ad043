"""The web studio: the page at /, its files under /studio. Nothing flows through; they are files of this package."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

FOLDER = Path(__file__).parents[1] / "web"


def mount_studio(app: FastAPI) -> None:
    """Serves the page, which talks to the other routes like any client."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(FOLDER / "index.html")

    app.mount("/studio", StaticFiles(directory=FOLDER))
