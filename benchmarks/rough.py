"""A server among clients that behave badly: many at once, gone in the middle, and a process that is stopped and killed.

    python -m benchmarks.rough [--model DIR] [--clients 64] [--gone 200] [--json FILE]

`llada-uni serve` on a free port of this machine -> phases, each a line of what was seen:
  clients   so many requests at once, streams and answers: how they ended
  gone      so many connections cut at a moment drawn by chance: in the head, the body, the queue, in mid-stream; then whether
            jobs are left, whether a request is still answered with the same bytes, and what memory grew by
  stopped   SIGTERM with requests under way: the exit code, how they ended
  killed    kill -9 with requests under way, and a new process on the same port: seconds until it is ready
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from scripts.server_process import ServerProcess

DRAW = "/v1/images/generations"
WAIT = 600.0  # seconds that anything may take
BODY = {"prompt": "a cat at the top left and a dog at the bottom right on green", "seed": 1}


async def ask(client: httpx.AsyncClient, number: int) -> str:
    """One request, every second one a stream: how it ended."""
    try:
        if number % 2:
            async with client.stream("POST", DRAW, json=BODY | {"stream": True, "progress": True}) as response:
                text = "".join([piece async for piece in response.aiter_text()])
            whole = response.status_code != 200 or ".completed" in text or "event: error" in text
            return str(response.status_code) if whole else "cut"
        return str((await client.post(DRAW, json=BODY)).status_code)
    except httpx.HTTPError as error:
        return type(error).__name__


async def crowd(url: str, clients: int) -> Counter[str]:
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=WAIT, limits=limits) as client:
        return Counter(await asyncio.gather(*(ask(client, number) for number in range(clients))))


async def leave(port: int, chance: random.Random) -> None:
    """A connection that is cut somewhere between its first byte and the end of the answer."""
    body = json.dumps(BODY | {"stream": chance.random() < 0.5, "progress": True}).encode()
    head = f"POST {DRAW} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    whole = head + body
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = len(whole) if chance.random() < 0.6 else chance.randrange(len(whole))
    writer.write(whole[:sent])
    try:
        await writer.drain()
        await asyncio.wait_for(reader.read(chance.choice((1, 400, 40_000))), chance.random() * 3)
    except (asyncio.TimeoutError, ConnectionError):
        pass
    if chance.random() < 0.5:
        writer.transport.abort()  # a reset instead of an orderly end
    else:
        writer.close()


def picture(url: str) -> str:
    answer = httpx.post(f"{url}{DRAW}", json=BODY, timeout=WAIT)
    return str(answer.json()["data"][0]["b64_json"])


async def disappear(server: ServerProcess, port: int, count: int) -> dict[str, Any]:
    chance, before, wanted = random.Random(1), server.memory, picture(server.address)
    for start in range(0, count, 20):
        await asyncio.gather(*(leave(port, chance) for _ in range(min(20, count - start))))
    began = time.monotonic()
    while server.jobs() and time.monotonic() - began < WAIT:
        await asyncio.sleep(0.2)
    return {
        "connections": count, "jobs_left": server.jobs(), "seconds_to_none": round(time.monotonic() - began, 1),
        "same_bytes": picture(server.address) == wanted, "grown_mib": (server.memory - before) // 2**20,
    }  # fmt: skip


async def stop(server: ServerProcess, number: int) -> tuple[Counter[str], float]:
    """Sends a signal with 8 requests under way: how these ended, and seconds until the process has."""
    asked = asyncio.create_task(crowd(server.address, 8))
    while not await asyncio.to_thread(server.jobs):
        await asyncio.sleep(0.05)
    began = time.monotonic()
    server.process.send_signal(number)
    await asyncio.to_thread(server.process.wait, WAIT)
    return await asked, round(time.monotonic() - began, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--gone", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = (*([options.model] if options.model else []), "--port", str(port))
    seen: dict[str, Any] = {}

    def tell(name: str, what: dict[str, Any]) -> None:
        seen[name] = what
        print(f"{name:8}", json.dumps(what), flush=True)
        if options.json:
            options.json.write_text(json.dumps(seen, indent=1) + "\n", encoding="utf-8")

    server = ServerProcess(*command)
    try:
        tell("ready", {"seconds": round(server.until_ready(), 1)})
        began = time.monotonic()
        ended = asyncio.run(crowd(server.address, options.clients))
        tell("clients", {"ended": ended, "seconds": round(time.monotonic() - began, 1), "jobs_left": server.jobs()})
        tell("gone", asyncio.run(disappear(server, port, options.gone)))
        ended, seconds = asyncio.run(stop(server, signal.SIGTERM))
        tell("stopped", {"exit": server.process.returncode, "ended": ended, "seconds": seconds})
        server = ServerProcess(*command)
        server.until_ready()
        ended, _ = asyncio.run(stop(server, signal.SIGKILL))
        server = ServerProcess(*command)
        tell("killed", {"ended": ended, "ready_again_seconds": round(server.until_ready(), 1)})
        tell("last", {"answers": len(picture(server.address)) > 0})
    finally:
        server.process.kill()


if __name__ == "__main__":
    main()
