"""`llada-uni serve` as a process on a free port of this machine, for programs that ask it from outside."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

START_SECONDS = 600.0  # for the server to read its model, also on a busy machine
END_SECONDS = 60.0


class ServerProcess:
    """options: of the command; `--port` among them names a port that must be free. address: its base URL.

    As a context it is ready inside, and stopped at the end. SystemExit when it does not start.
    """

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "llada_uni", "serve", "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.address = ""
        for line in self.process.stderr:
            if found := re.search(r"http://[\d.]+:\d+", line):
                self.address = found.group()
                break
        if not self.address:
            raise SystemExit("the server did not start")
        threading.Thread(target=self._drain, daemon=True).start()

    def __enter__(self) -> ServerProcess:
        try:
            self.until_ready()
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _drain(self) -> None:
        """Reads what the server says further on: a full pipe would hold it up."""
        assert self.process.stderr is not None
        with contextlib.suppress(ValueError):  # closed by `stop`
            for _ in self.process.stderr:
                pass

    def until_ready(self) -> float:
        """Waits until the model is in memory; the seconds it took."""
        began = time.monotonic()
        while time.monotonic() - began < START_SECONDS:
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended with {self.process.returncode}")
            with contextlib.suppress(urllib.error.URLError, OSError):
                if urllib.request.urlopen(f"{self.address}/ready", timeout=30).status == 200:
                    return time.monotonic() - began
            time.sleep(0.1)
        raise SystemExit("the server was not ready in time")

    def jobs(self) -> int:
        """Running and waiting, as its metrics say."""
        with urllib.request.urlopen(f"{self.address}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        return sum(int(float(value)) for value in re.findall(r"^llada_uni_jobs_\w+ ([\d.]+)$", text, re.MULTILINE))

    @property
    def memory(self) -> int:
        """Resident bytes; 0 where the system does not tell."""
        path = Path(f"/proc/{self.process.pid}/statm")
        return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if path.exists() else 0

    @property
    def processor_seconds(self) -> float:
        """Used so far; 0 where the system does not tell."""
        path = Path(f"/proc/{self.process.pid}/stat")
        if not path.exists():
            return 0.0
        fields = path.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        """Ends it as an operator would; the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(END_SECONDS)
        finally:
            self.process.kill()
            if self.process.stderr is not None:
                self.process.stderr.close()
