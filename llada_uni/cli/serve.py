"""The command that serves: `llada-uni serve`.

Options -> a model, limits, a socket -> `serving.server.run`, until a signal comes.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llada_uni.cli.common import say
from llada_uni.cli.groups import with_groups
from llada_uni.cli.serve_models import ServedOptions, adapter_offer, check_names, main_and_named, model_offer, named_folders
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

Loras = Annotated[
    list[str] | None,
    typer.Option("--lora", metavar="NAME=DIR", help="The model with an adapter, asked for as NAME; may be repeated."),
]


@with_groups
def serve(
    folder: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Model directory; default: LLADA_UNI_MODEL, else the shipped one.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
    api_key: Keys = None,
    lora: Loras = None,
    model_memory: Annotated[
        float | None,
        typer.Option(help="GiB for further models and adapters; the one unused longest makes room. Default: no limit."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What clients call the model; default: the directory's name.")] = None,
    max_batch: Annotated[int, typer.Option(help="Requests worked on at a time.")] = 32,
    max_queue: Annotated[int, typer.Option(help="Requests that wait; more are refused with 429.")] = 128,
    max_pixels: Annotated[int, typer.Option(help="Of one picture, sent or asked for.")] = 16_000_000,
    max_tokens: Annotated[int, typer.Option(help="Words one answer may ask for, in tokens.")] = 4096,
    timeout: Annotated[float, typer.Option(help="Seconds from arrival to answer; then 504.")] = 300.0,
    rate: Annotated[float | None, typer.Option(help="Requests a minute for each key (each address without keys).")] = None,
    quota: Annotated[
        list[str] | None,
        typer.Option(
            help="A day's share of each key, requests=1000,tokens=200000,images=50; of the second key alone: 2:images=10."
        ),
    ] = None,
    prefix_cache: Annotated[int, typer.Option(help="MiB for beginnings of prompts that requests share.")] = 64,
    allow_remote_images: Annotated[
        bool, typer.Option(help="Fetch pictures given as http(s) addresses (public ones only).")
    ] = False,
    cors_origin: Origins = None,
    lenient: Annotated[
        bool, typer.Option(help="Leave unknown and unsupported fields out of requests, with a warning, instead of refusing.")
    ] = False,
    grace: Annotated[float, typer.Option(help="Seconds to finish what runs when told to stop.")] = 30.0,
    access_log: Annotated[bool, typer.Option(help="A line on stderr for each request.")] = False,
    log_format: Annotated[str, typer.Option(help="Of the lines on stderr: text, or json.")] = "text",
    metrics_port: Annotated[
        int | None, typer.Option(help="Also answer /metrics at this port of --host, where no key is needed.")
    ] = None,
    otel: Annotated[
        bool, typer.Option("--otel", help="Send OpenTelemetry spans where OTEL_EXPORTER_OTLP_ENDPOINT says.")
    ] = False,
    *,
    loading: ServedOptions,
) -> None:
    """Serve the model over HTTP: OpenAI's API (chat, images, edits), and a page to draw in at /.

    Point any OpenAI client at http://127.0.0.1:8000/v1; the page is http://127.0.0.1:8000. SIGTERM or Ctrl+C finishes
    what runs, refuses the rest with 503, and ends with exit code 0; a second one stops at once. See docs/serving.md.

    Example: `llada-uni serve models/world --port 8000 --max-batch 16`

    Example: `llada-uni serve models/world --model big=models/uni --lora painter=adapters/painter --model-memory 40`

    Example: `LLADA_UNI_API_KEY=secret llada-uni serve --host 0.0.0.0 --rate 60`
    """
    if log_format not in ("text", "json"):
        raise UserError(f"--log-format is {log_format!r}; allowed: text, json")
    main, named = main_and_named(folder, loading.model or [])
    with_adapters = named_folders(lora or [], "--lora")
    from llada_uni.serving.memory import keep_little

    keep_little()  # before torch is imported
    from llada_uni.serving.http.options import ServerOptions, keys_from_environment
    from llada_uni.serving.http.quota import read_quotas
    from llada_uni.serving.http.trace import start_tracing
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
    uni = loading.one(main).load("starting")
    from llada_uni.serving.metrics import Metrics
    from llada_uni.serving.scheduler.models import Models
    from llada_uni.serving.scheduler.service import Service
    from llada_uni.tasks.find import name_of

    options = ServerOptions(
        keys, allow_remote_images, tuple(cors_origin or ()), name or name_of(uni.folder), lenient, read_quotas(quota or ())
    )
    metrics = Metrics()
    if metrics_port is not None:
        metrics.listen(host, metrics_port)
    if otel:
        start_tracing(options.model_name)
    service = Service(uni, limits, metrics)
    offers = {other: model_offer(loading.one(path)) for other, path in named.items()}
    offers |= {other: adapter_offer(uni, Path(path)) for other, path in with_adapters.items()}
    check_names(options.model_name, named, with_adapters)
    memory = None if model_memory is None else int(model_memory * 2**30)
    models = Models(offers, memory, limits, metrics) if offers else None
    _log(access_log, log_format)
    _introduce(host, listener.getsockname()[1], options, limits)

    def loaded() -> None:
        say(service.failure or "ready")

    run(service, options, listener, grace, loaded, models)


def _log(access_log: bool, form: str) -> None:
    """Lines on stderr: warnings and errors, with `access_log` one for each request, too."""
    from llada_uni.serving.http import trace

    handler = logging.StreamHandler()
    handler.setFormatter(trace.JsonLines() if form == "json" else logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    trace.log.setLevel(logging.INFO if access_log else logging.WARNING)


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
