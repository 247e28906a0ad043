"""The web studio: the page at /, its files under /studio. Nothing flows through; they are files of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

FOLDER = Path(__file__).parents[2] / "web"
FRESH = {"Cache-Control": "no-cache"}  # asked for each time: after an upgrade old and new modules must not mix


class FreshFiles(StaticFiles):
    def file_response(self, *given: Any, **named: Any) -> Response:
        response = super().file_response(*given, **named)
        response.headers.update(FRESH)
        return response


def mount_studio(app: FastAPI) -> None:
    """Serves the page, which talks to the other routes like any client."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(FOLDER / "index.html", headers=FRESH)

    app.mount("/studio", FreshFiles(directory=FOLDER))
