"""Compiling: once, in one step, also by several processes; and what is left without a compiler or with a broken one."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llada_uni.backbone.native import build

COUNTS = """#!/bin/sh
echo once >> {log}
exec {compiler} "$@"
"""
compiler = build.find_compiler()
needs_compiler = pytest.mark.skipif(compiler is None, reason="no compiler")

TINY = 'extern "C" int llada_uni_lanes() { return 7; }\n'


@pytest.fixture
def tiny_source(tmp_path, monkeypatch):
    """A source that compiles at once, in the place of ours."""
    source = tmp_path / "tiny.cpp"
    source.write_text(TINY)
    monkeypatch.setattr(build, "SOURCE", str(source))
    return source


def counting(tmp_path: Path, monkeypatch, text: str = COUNTS) -> Path:
    """CXX becomes a script; the file it returns has a line for every call."""
    log, script = tmp_path / "calls", tmp_path / "cxx"
    script.write_text(text.format(log=log, compiler=" ".join(compiler or ())))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(script))
    return log


@needs_compiler
def test_compiled_once_and_kept(tmp_path, monkeypatch, tiny_source):
    log = counting(tmp_path, monkeypatch)
    for _ in range(3):
        library, reason = build.load(tmp_path / "cache")
        assert library is not None and not reason and library.llada_uni_lanes() == 7
    assert len(log.read_text().splitlines()) == 2  # compiling and linking
    names = sorted(file.suffix for file in (tmp_path / "cache").iterdir())
    assert names in ([".lock", ".so"], [".so"])  # nothing half written


@needs_compiler
def test_two_processes_compile_once(tmp_path, monkeypatch, tiny_source):
    log = counting(tmp_path, monkeypatch, COUNTS.replace("exec", "sleep 0.5; exec"))
    code = (
        "import sys; from pathlib import Path; from llada_uni.backbone.native import build; "
        f"build.SOURCE = {str(tiny_source)!r}; library, _ = build.load(Path({str(tmp_path / 'cache')!r})); "
        "sys.exit(library.llada_uni_lanes() - 7)"
    )
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(300) for process in running] == [0, 0]
    assert len(log.read_text().splitlines()) == 2


def test_no_compiler(tmp_path, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    library, reason = build.load(tmp_path / "cache")
    assert library is None and reason == "there is no C++ compiler (c++, g++, clang++; CXX names another)"


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo the disk is full >&2\nexit 3\n", "the disk is full"), ("exit 1\n", "exit code 1"), ("kill $$\n", "exit code -15")],
)
def test_a_broken_compiler(tmp_path, monkeypatch, script, said):
    counting(tmp_path, monkeypatch, "#!/bin/sh\n" + script)
    library, reason = build.load(tmp_path / "cache")
    assert library is None and reason == f"{tmp_path / 'cxx'} failed: {said}"
    assert not list((tmp_path / "cache").glob("*.so"))


def test_a_compiler_that_is_not_there_or_writes_rubbish(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    library, reason = build.load(tmp_path / "cache")
    assert library is None and "No such file or directory" in reason
    counting(tmp_path, monkeypatch, '#!/bin/sh\nfor last; do true; done; echo rubbish > "$last"\n')
    library, reason = build.load(tmp_path / "cache")
    assert library is None and ".so: " in reason


def test_a_processor_that_the_compiler_cannot_name(tmp_path, monkeypatch, tiny_source):
    """Then it compiles for any of its kind; and without threads where there is no OpenMP."""
    if compiler is None:
        pytest.skip("no compiler")
    refuses = (
        'for each; do case "$each" in -march=*|-mcpu=*|-fopenmp) echo unknown >&2; exit 1;; esac; done\nexec {compiler} "$@"\n'
    )
    counting(tmp_path, monkeypatch, "#!/bin/sh\n" + refuses)
    library, _ = build.load(tmp_path / "cache")
    assert library is not None and library.llada_uni_lanes() == 7


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = build.cache_folder()
    assert folder.is_dir() and os.access(folder, os.W_OK)
    shutil.rmtree(folder)
    assert build.load(tmp_path / "file").library is None


def test_the_key_names_what_a_library_depends_on(monkeypatch):
    before = build.key()
    assert before == build.key()
    monkeypatch.setattr(build, "processor", lambda: "another one")
    assert build.key() != before


PROGRAM = """
import torch
from llada_uni.backbone import calibration, forms
with torch.inference_mode():
    x, weight = torch.randn(4, 16), torch.randn(8, 16)
    assert torch.allclose(forms.linear(x, weight), x @ weight.t(), atol=1e-5)
print(*calibration.choices().values())
"""


@pytest.mark.parametrize("cxx", ["", "false"])
def test_without_native_products_all_goes_on(tmp_path, cxx):
    """In a process of its own: silent by default, one line where they were asked for."""
    ours = {"PATH": str(tmp_path), "CXX": cxx, "XDG_CACHE_HOME": str(tmp_path)}
    run = {"capture_output": True, "text": True, "timeout": 300}
    environment = {**os.environ, **ours}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, **run)
    assert done.returncode == 0 and not done.stderr and "native" not in done.stdout
    asked = subprocess.run([sys.executable, "-c", PROGRAM], env={**environment, "LLADA_UNI_EXPERTS": "native"}, **run)
    last = asked.stderr.splitlines()[-1]
    assert asked.returncode == 1 and "LLADA_UNI_EXPERTS is 'native', which cannot be had here" in last


@needs_compiler
def test_the_first_product_under_another_default_dtype():
    """As while a model is loaded in bfloat16: the check of the library wrote beyond a result of half the size."""
    code = (
        "import torch; from llada_uni.backbone.native import products; torch.set_default_dtype(torch.bfloat16); "
        "assert all(products._computes(products._functions()) for _ in range(2000)) and products.available()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("flags", [["-mavx2", "-mfma"], ["-mno-avx"], ["-mavx512f"], []])
def test_other_vectors_compute_the_same(tmp_path, flags):
    """The forms of AVX2 and of 128-bit vectors (which NEON uses too), as far as this processor runs them."""
    if "-mno-avx" in flags and os.uname().machine != "x86_64":
        pytest.skip("flags of another processor")
    known = build.processor().split()
    if any(flag.removeprefix("-m") not in known for flag in flags if not flag.startswith("-mno")):
        pytest.skip("this processor lacks them")
    target = tmp_path / "other.so"
    build._compile([*compiler, *build.FLAGS, *flags], target, *build.openmp())
    code = (
        "import ctypes, sys; from llada_uni.backbone.native import build\n"
        f"build.loaded = lambda: build.Loaded(ctypes.CDLL({str(target)!r}))\n"
        "import pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *sys.argv[1:]]))"
    )
    files = [f"tests/backbone/test_{name}.py" for name in ("forms", "quantized", "whole_layer")]
    which = [*files, "-k", "native or stored or company or taken_back or attention or to_the_bit"]
    subprocess.run([sys.executable, "-c", code, *which], check=True, timeout=900)
