"""The command that serves: `llada-uni serve`.

Options -> a model, limits, a socket -> `serving.server.run`, until a signal comes.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from llada_uni.cli.common import ModelOptions, say
from llada_uni.cli.groups import with_groups
from llada_uni.errors import UserError

if TYPE_CHECKING:
    from llada_uni.serving.http.options import ServerOptions
    from llada_uni.serving.scheduler.limits import Limits

Keys = Annotated[
    list[str] | None,
    typer.Option("--api-key", help="Key that clients must send; may be repeated. Better in LLADA_UNI_API_KEY (a,b,...)."),
]
Origins = Annotated[
    list[str] | None,
    typer.Option("--cors-origin", help="Site whose pages may call the API (https://example.org); may be repeated; * is all."),
]


@with_groups
def serve(
    folder: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Model directory; default: LLADA_UNI_MODEL, else the shipped one.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
    api_key: Keys = None,
    name: Annotated[str | None, typer.Option(help="What clients call the model; default: the directory's name.")] = None,
    max_batch: Annotated[int, typer.Option(help="Requests worked on at a time.")] = 32,
    max_queue: Annotated[int, typer.Option(help="Requests that wait; more are refused with 429.")] = 128,
    max_pixels: Annotated[int, typer.Option(help="Of one picture, sent or asked for.")] = 16_000_000,
    max_tokens: Annotated[int, typer.Option(help="Words one answer may ask for, in tokens.")] = 4096,
    timeout: Annotated[float, typer.Option(help="Seconds from arrival to answer; then 504.")] = 300.0,
    rate: Annotated[float | None, typer.Option(help="Requests a minute for each key (each address without keys).")] = None,
    prefix_cache: Annotated[int, typer.Option(help="MiB for beginnings of prompts that requests share.")] = 64,
    allow_remote_images: Annotated[
        bool, typer.Option(help="Fetch pictures given as http(s) addresses (public ones only).")
    ] = False,
    cors_origin: Origins = None,
    grace: Annotated[float, typer.Option(help="Seconds to finish what runs when told to stop.")] = 30.0,
    access_log: Annotated[bool, typer.Option(help="A line on stderr for each request.")] = False,
    *,
    loading: ModelOptions,
) -> None:
    """Serve the model over HTTP: OpenAI's API (chat, images, edits), and a page to draw in at /.

    Point any OpenAI client at http://127.0.0.1:8000/v1; the page is http://127.0.0.1:8000. SIGTERM or Ctrl+C finishes
    what runs, refuses the rest with 503, and ends with exit code 0; a second one stops at once. See docs/serving.md.

    Example: `llada-uni serve models/world --port 8000 --max-batch 16`

    Example: `LLADA_UNI_API_KEY=secret llada-uni serve --host 0.0.0.0 --rate 60`
    """
    if folder is not None and loading.model is not None:
        raise UserError("the model is given twice, as an argument and with --model; give it once")
    from llada_uni.serving.memory import keep_little

    keep_little()  # before torch is imported
    from llada_uni.serving.http.options import ServerOptions, keys_from_environment
    from llada_uni.serving.scheduler.limits import Limits
    from llada_uni.serving.server import open_socket, run

    limits = Limits(
        max_batch=max_batch,
        max_queue=max_queue,
        max_pixels=max_pixels,
        max_tokens=max_tokens,
        timeout=timeout,
        rate=rate,
        prefix_cache_bytes=prefix_cache * 2**20,
    )
    keys = (*(api_key or ()), *keys_from_environment())
    listener = open_socket(host, port)
    uni = replace(loading, model=folder or loading.model).load("starting")
    from llada_uni.serving.metrics import Metrics
    from llada_uni.serving.scheduler.service import Service
    from llada_uni.tasks.find import name_of

    options = ServerOptions(keys, allow_remote_images, tuple(cors_origin or ()), name or name_of(uni.folder))
    service = Service(uni, limits, Metrics())
    logging.basicConfig(level=logging.INFO if access_log else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    _introduce(host, listener.getsockname()[1], options, limits)

    def loaded() -> None:
        say(service.failure or "ready")

    run(service, options, listener, grace, access_log, loaded)


def _introduce(host: str, port: int, options: ServerOptions, limits: Limits) -> None:
    """What a person needs to know who has just started a server."""
    everywhere = host in ("0.0.0.0", "::")
    shown = "localhost" if everywhere else f"[{host}]" if ":" in host else host
    base = f"http://{shown}:{port}"
    auth = " -H 'Authorization: Bearer KEY'" if options.api_keys else ""
    body = '{"prompt": "a cat at the top left and a dog at the bottom right on green", "seed": 1}'
    say(f"{base}  the page; {base}/v1  the API, for any OpenAI client")
    say(f"model   {options.model_name}, loading; {base}/ready tells when it is there")
    say(
        f"limits  {limits.max_batch} requests at a time, {limits.max_queue} waiting, {limits.timeout:g} s each, "
        f"pictures of {limits.max_pixels / 1e6:g} megapixels, {limits.max_tokens} tokens an answer"
    )
    if not options.api_keys and host not in ("127.0.0.1", "::1", "localhost"):
        say("warning  no API key is set: whoever reaches this address may use the model")
    say(f"try     curl {base}/v1/images/generations{auth} -H 'Content-Type: application/json' -d '{body}'")
