"""What `import llada_uni` gives, what it costs, and that its version has one spelling."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

import llada_uni

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "diffusers", "PIL", "numpy", "pydantic", "fastapi")


def run(code: str) -> tuple[str, float]:
    """What a new Python prints, and the processor seconds it took (a busy machine does not change those much)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


IMPORT, HELP = "import llada_uni; llada_uni.__version__", "from llada_uni.cli import main; main(['--help'])"


@pytest.mark.parametrize("code", [IMPORT, HELP], ids=["import", "help"])
def test_import_and_help_take_under_half_a_second_without_heavy_libraries(code):
    out, seconds = run(f"import sys; {code}; print([name for name in {HEAVY} if name in sys.modules])")
    assert out.splitlines()[-1] == "[]"
    assert seconds < 0.5


def test_the_package_gives_its_main_names_when_asked():
    from llada_uni import UniModel, UserError
    from llada_uni.errors import UserError as same_error
    from llada_uni.model import UniModel as same_model

    assert UniModel is same_model and UserError is same_error
    assert {"UniModel", "UserError", "__version__"} <= set(dir(llada_uni))
    with pytest.raises(AttributeError, match="has no attribute 'UniMdel'"):
        _ = llada_uni.UniMdel


def test_the_version_is_that_of_pyproject(capsys):
    from llada_uni.cli import main

    spelled = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert llada_uni.__version__ == spelled
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"llada-uni {spelled}\n"


def test_types_are_announced():
    assert (ROOT / "llada_uni" / "py.typed").is_file()
