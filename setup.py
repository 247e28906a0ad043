"""Puts the shipped models and the recipes into the wheel; all else about the build is in pyproject.toml.

They lie beside the package in the repository, where people look for them, and inside it in a wheel: llada_uni/shipped/.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = ("models/world", "models/photos", "recipes")


class BuildWithShipped(build_py):
    """The usual build, and the folders that are there (a container leaves the model out: its own is mounted)."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # a checkout reads them where they are
            return
        for folder in FOLDERS:
            if Path(folder).is_dir():
                target = Path(self.build_lib, "llada_uni", "shipped", folder)
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(folder, target)


setup(cmdclass={"build_py": BuildWithShipped})
