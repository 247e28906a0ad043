"""A process that runs commands against the test's hub, one after another: the client reads HF_ENDPOINT when it is imported.

A line of JSON on stdin -> a command line of ours, or some Python -> a line of JSON on stdout: exit code, output, value.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from pathlib import Path


def run(job: dict) -> dict:
    from huggingface_hub import constants

    from llada_uni import cli

    for name, value in job["environment"].items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    constants.HF_HUB_CACHE = str(Path(job["home"]) / "hub")
    constants.HF_HUB_OFFLINE = bool(job["offline"])
    constants.ENDPOINT = os.environ["HF_ENDPOINT"]
    out, err, names = io.StringIO(), io.StringIO(), {}
    code: int | None = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            exec(job.get("prelude", ""), {})
            if "python" in job:
                exec(job["python"], names)
            else:
                code = cli.main(job["command"])
        except BaseException as error:
            if "UserError" in (cls.__name__ for cls in type(error).__mro__):
                code, line = 2, str(error)
                print(line, file=sys.stderr)
            else:
                code = 1
                traceback.print_exc()
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "value": names.get("value")}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(run(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
