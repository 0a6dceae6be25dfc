"""How fast is an ASGI app that does nothing? `uvicorn bench.served.bare:app`."""

from typing import Any

BODY = (
    b'{"predictions":[{"label":"spam","score":0.901513,"scores":{"spam":0.901513,"ham":0.098487}}],'
    b'"model_version":"5f0c2a91-5574","model_age_seconds":0.08,"feedback_offsets":{"0":5574}}'
)
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


async def app(_scope: Any, _receive: Any, send: Any) -> None:
    """Answer with a constant; the request is not even read."""
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": BODY})
