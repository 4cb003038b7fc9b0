"""``featx serve``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from featx.arguments import path_of
from featx.cli.needs import ALWAYS, CHECKED, refuse
from featx.cli.option_groups import Command, option
from featx.cli.options import (
    COUNT,
    DEVICE,
    JSON,
    MODELS_SOURCE,
    POSITIVE,
    SOURCE_BACKBONE,
    VERBOSITY,
    WORKERS,
    needing,
    options,
    verbosity,
)
from featx.cli.output import print_notes
from featx.extraction.engine_table import ENGINES
from featx.progress import progress_bar
from featx.reporter import Reporter, stage_of_import
from featx.text import counted, printable

_MB = 1_000_000

_LIMITS = options(
    option(
        "--max-request", type=COUNT, default=64, show_default=True, section="Limit", needs=ALWAYS, metavar="MB",
        help="Megabytes of one request. A larger one gets the status 413.",
    ),
    option(
        "--max-image", type=COUNT, default=32, show_default=True, section="Limit", needs=ALWAYS, metavar="MB",
        help="Megabytes of one image file. A larger one gets the status 413.",
    ),
    option(
        "--max-images", type=COUNT, default=64, show_default=True, section="Limit", needs=ALWAYS, metavar="N",
        help="Image files in one request.",
    ),
    option(
        "--max-pixels", type=COUNT, show_default="178,956,970", section="Limit", needs=ALWAYS, metavar="N",
        help="Pixels (width x height) of one image. One with more fails, judged by its header.",
    ),
    option(
        "--queue", type=COUNT, default=256, show_default=True, section="Limit", needs=ALWAYS, metavar="N",
        help="Images that wait for their turn. A request that does not fit gets the status 503.",
    ),
    option(
        "--max-held", type=COUNT, default=512, show_default=True, section="Limit", needs=ALWAYS, metavar="MB",
        help="Megabytes of all requests in memory together. A request that does not fit gets the status 503.",
    ),
    option(
        "--max-connections", type=COUNT, default=256, show_default=True, section="Limit", needs=ALWAYS, metavar="N",
        help="Open connections. A further one takes the place of one that waits for a request, or gets the status 503.",
    ),
    option(
        "--timeout", type=POSITIVE, default=60, show_default=True, section="Limit", needs=ALWAYS, metavar="SECONDS",
        help="Time in which the body of a request must arrive. Its head has at most 10 seconds.",
    ),
    option(
        "--stop-timeout", type=POSITIVE, default=30, show_default=True, section="Limit", needs=ALWAYS, metavar="SECONDS",
        help="Time that requests in progress may take after a signal has stopped the service.",
    ),
)  # fmt: skip


@click.command(
    "serve", cls=Command, short_help="Answer requests for predictions over HTTP.",
    examples=(
        "featx serve models/photos--resnet50--logreg.safetensors",
        "featx serve models/photos--resnet50--logreg.safetensors --port 0 --json",
        "curl -F files=@new.jpg http://127.0.0.1:8000/predict?top=3",
    ),
)  # fmt: skip
@click.argument("model", required=False)
@option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, section="Server", needs=ALWAYS, metavar="N",
    help="Port; 0 takes a free one.",
)  # fmt: skip
@option(
    "--host", default="127.0.0.1", show_default=True, section="Server", needs=ALWAYS, metavar="ADDRESS",
    help="Address to listen on. By default only this machine reaches the service; 0.0.0.0 lets every machine reach it.",
)  # fmt: skip
@option(
    "--token", envvar="FEATX_TOKEN", show_envvar=True, section="Server", needs=ALWAYS, metavar="TEXT",
    help="Secret that clients must send as Authorization: Bearer TEXT. Other users of this machine see options, but not the "
    "variable.",
)  # fmt: skip
@option(
    "--allow-origin", multiple=True, section="Server", needs=ALWAYS, metavar="ORIGIN",
    help="Origin whose web pages may call the service, such as https://example.org, or *. May be repeated.",
)  # fmt: skip
@option("--access-log", is_flag=True, section="Server", needs=ALWAYS, help="Print a line on stderr for each request.")
@_LIMITS
@option(
    "--compute", type=click.Choice(("auto", *ENGINES)), default="auto", show_default=True, section="Compute", needs=ALWAYS,
    metavar="NAME",
    help=f"Engine that runs the network: {', '.join(ENGINES)}; auto measures once which is fastest here, and remembers it.",
)  # fmt: skip
@needing(CHECKED, MODELS_SOURCE)
@SOURCE_BACKBONE
@DEVICE
@WORKERS
@VERBOSITY
@JSON
@click.pass_context
def serve(ctx: click.Context, /, model: str | None, **given: Any) -> None:
    """Answer requests for predictions by MODEL, a head or a promoted model; by default the newest in the models folder.

    POST /predict takes image files and returns JSON. The address is printed on stdout as soon as clients can connect. GET / is
    a page to try the service in a browser, GET /docs describes all paths, and GET /metrics has counters for Prometheus.

    Ctrl-C or SIGTERM stops the service: it takes no new requests, answers those that it has, and ends with status 0. A second
    signal ends it at once.
    """
    shown = verbosity(ctx)
    del given["quiet"], given["verbose"]
    with progress_bar("serve", "images", shown) as reporter:
        _serve(model, reporter, **given)


def _serve(
    model: str | None, reporter: Reporter, *, host: str, port: int, token: str | None, allow_origin: tuple[str, ...],
    access_log: bool, models: str, as_json: bool, compute: str, backbone: str | None, weights: str | None, device: str,
    workers: int | None, **limits: Any,
) -> None:  # fmt: skip
    from featx.serving.creation import create_app, require_packages

    require_packages()
    if model is not None:
        refuse(models="with MODEL, which is a file of any folder")
    from featx.cli.choice import newest_model
    from featx.serving import server

    file = str(newest_model(models, reporter)) if model is None else path_of(model, "MODEL")
    listener = server.bind(host, port)
    try:
        if not server.is_loopback(listener):
            note = (
                "anyone who reaches it may use the service"
                if token is None
                else "the token passes the network in plain text"
            )
            print_notes(f"Warning: {host} is not an address of this machine alone: {note}")  # with --quiet too
        stage_of_import(reporter)
        app = create_app(
            file, limits=_limits(**limits), token=token, allow_origins=allow_origin, compute=compute, workers=workers,
            backbone=backbone, weights=weights, device=device, access_log=_log if access_log else None, reporter=reporter,
        )  # fmt: skip
        facts = app.state.service.facts
        server.run(app, listener, ready=lambda: _show(server.url_of(listener), file, facts, as_json))
    finally:
        listener.close()


def _limits(
    *, max_request: int, max_image: int, max_images: int, max_pixels: int | None, queue: int, max_held: int,
    max_connections: int, timeout: float, stop_timeout: float,
) -> Any:  # fmt: skip
    from featx.serving.limits import Limits

    if queue < max_images:
        raise click.UsageError(f"--queue {queue} has no room for the images of a request (--max-images {max_images})")
    if max_held < max_request:
        raise click.UsageError(f"--max-held {max_held} has no room for one request (--max-request {max_request})")
    return Limits(
        request_bytes=max_request * _MB,
        image_bytes=max_image * _MB,
        images=max_images,
        queue=queue,
        held_bytes=max_held * _MB,
        connections=max_connections,
        arrival_seconds=timeout,
        stop_seconds=stop_timeout,
        **({"pixels": max_pixels} if max_pixels else {}),
    )


def _show(url: str, file: str, facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps({"url": url, "model": file, **{key: facts[key] for key in ("task", "classes", "engine")}})
        )
    else:
        what = counted(len(facts["classes"]), "class", "classes")
        click.echo(f"{url} serves {printable(Path(file).name)}: {what}, {facts['engine']}; Ctrl-C stops it")


def _log(line: str) -> None:
    click.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", err=True)
