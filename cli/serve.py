"""How does the API run alone? `driftline serve`, and what is shown once it is there."""

import json
import logging

from rich.markup import escape

from driftline.api.settings import ApiSettings
from driftline.cli.terminal import terminal, where
from driftline.stream import lines
from driftline.stream.flags import with_settings
from driftline.stream.settings import StreamSettings


@with_settings
def serve(stream: StreamSettings, api: ApiSettings) -> None:
    """Run the API alone: append messages and labels to the log, answer from the learner's snapshots."""
    from driftline.api.server import serve as serve_api

    lines.begin(stream.log_format)
    serve_api(stream, api, on_ready=lambda started: print_banner(started.url, started.reference, stream))


def print_banner(url: str, reference: str, stream: StreamSettings) -> None:
    """Show where the API is, and what to do first; a machine only needs the address."""
    if stream.log_format == "json":
        fields = {"url": url, "log": stream.log_shown, "data": stream.data.resolve()}
        logging.getLogger("driftline").info("Driftline is up at %s", url, extra={"fields": fields})
        return
    url, reference = (each.replace("0.0.0.0", "localhost") for each in (url, reference))
    post = f"curl {url}/{{}} -H 'content-type: application/json' -d"
    feedback = json.dumps({"message_id": "m1", "label": "spam", "text": "You won a prize, call now"})
    terminal().print(
        f"""
[bold]Driftline is up[/bold] at [bold]{url}[/bold]  (open it in a browser; Ctrl-C stops it)

Teach it a label, then ask it:
  {post.format("feedback")} {_quoted(feedback)}
  {post.format("predict")} {_quoted(json.dumps({"text": "Call now for your prize"}))}

Or send a labelled file from a second shell:
  driftline send FILE --label-delay 100{escape(where(stream))}

API and its reference: {reference}    State of the model: {url}/model
Log: {escape(stream.log_shown)}    Data: {escape(str(stream.data.resolve()))}
"""
    )


def _quoted(text: str) -> str:
    return escape("'" + text + "'")
