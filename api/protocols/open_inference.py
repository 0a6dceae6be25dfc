"""How do clients of the Open Inference Protocol ask? (KServe, Triton, Seldon; version 2, over HTTP.)

A text is an element of one BYTES tensor. Out come `label` BYTES [n], `score` FP64 [n], and, in the order of `labels`
BYTES [k], `scores` FP64 [n, k]; which of them can be asked for. Tensors may come in as JSON or as raw bytes behind it
(the protocol's binary tensor data extension); they go out as JSON. A version is that of the served model: it changes
as it learns, so to name one is to refuse any other. Errors have the API's one shape; `error` is a text in both.

Source: the protocol's "required API" and its extension for binary data.
"""

import struct
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import chain
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import numpy as np
from fastapi import APIRouter, Request, Response
from msgspec import Meta
from numpy.typing import NDArray

from driftline.api.errors import ApiError, encode, json_response, no_model
from driftline.api.http import openapi
from driftline.api.load.body import Bodies
from driftline.api.routes.predict import Predictor, check_texts
from driftline.api.settings import ApiSettings
from driftline.api.shared.health import Health, missing
from driftline.api.shared.watcher import Watcher
from driftline.learner.serving.snapshot import SnapshotInfo
from driftline.stream.wire.fields import as_name, mend_escapes

JSON_LENGTH: Final = "inference-header-content-length"
MAX_SCORES: Final = 1 << 20  # numbers in one answer
PIECE: Final = 1 << 14  # of them that are written at once
MAX_DEPTH: Final = 32  # of lists in each other
_BRACKET, _BLANK = b"["[0], b" \t\r\n"
_LENGTH: Final = struct.Struct("<I")
Scores = NDArray[np.float64]


_Any = Annotated[msgspec.Raw, Meta(extra_json_schema={})]
# Decoded once it is known to be short: a number may have thousands of digits.
_Shape = list[Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "integer"})]]


class Parameters(msgspec.Struct, frozen=True):
    """What else is said of a tensor."""

    binary_data_size: int | None = None  # its bytes behind the JSON


class InputTensor(msgspec.Struct, frozen=True):
    """Texts: a BYTES tensor of any shape, its elements in row-major order, flat or nested."""

    name: str
    shape: _Shape
    datatype: str
    data: _Any = msgspec.field(default_factory=msgspec.Raw)
    parameters: Parameters | None = None


class RequestedOutput(msgspec.Struct, frozen=True):
    """One of the tensors that can be had."""

    name: str


class InferRequest(msgspec.Struct, frozen=True):
    """Texts, and which outputs are wanted: all, where none is named."""

    inputs: list[InputTensor]
    id: str | openapi.Number | None = None
    outputs: list[RequestedOutput] | None = None


class OutputTensor(msgspec.Struct, frozen=True):
    """A tensor, its data flat in row-major order."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class InferAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the model says."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


class ServerMetadata(msgspec.Struct, frozen=True):
    """Who answers, and what it can besides the protocol's required part."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(msgspec.Struct, frozen=True):
    """A tensor's shape; -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct, frozen=True):
    """The served model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(msgspec.Struct, frozen=True):
    """The process answers."""

    live: bool = True


class Prepared(msgspec.Struct, frozen=True):
    """Messages and labels are taken; whether a model answers, its own route says."""

    ready: bool = True


class ModelPrepared(msgspec.Struct, frozen=True):
    """The model that was asked for is served."""

    name: str
    ready: bool = True


TYPES: Final = (InferRequest, InferAnswer, ServerMetadata, ModelMetadata, Live, Prepared, ModelPrepared)
_READY: Final = ("/v2/models/{name}/ready", "/v2/models/{name}/versions/{version}/ready")
OPEN_PATHS: Final = ("/v2/health/live", "/v2/health/ready", *_READY)  # no key is asked for
_INPUT: Final = TensorMetadata("text", "BYTES", [-1])
_OUTPUTS: Final = (
    TensorMetadata("label", "BYTES", [-1]),
    TensorMetadata("score", "FP64", [-1]),
    TensorMetadata("scores", "FP64", [-1, -1]),
    TensorMetadata("labels", "BYTES", [-1]),
)
_NAMES: Final = [output.name for output in _OUTPUTS]
_DECODER: Final = msgspec.json.Decoder(InferRequest)
_SHAPE: Final = msgspec.json.Decoder(list[int])
_EXAMPLE: Final = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["win a prize now"]}]}


class OpenInference:
    """Answers in the protocol's terms."""

    def __init__(self, predictor: Predictor, watcher: Watcher, bodies: Bodies, settings: ApiSettings) -> None:
        self._predictor, self._watcher, self._bodies, self._settings = predictor, watcher, bodies, settings
        self.name = settings.model_name

    def served(self, name: str, version: str | None = None) -> SnapshotInfo:
        """Return the served model.

        Raises
        ------
        ApiError : 404 there is no model of this name, or it has another version now; 503 nothing was learned yet.
        """
        if name != self.name:
            raise ApiError(404, "not-found", f"there is no model {name!r}", f"The model here is {self.name!r}.")
        served = self._watcher.served
        if served is None or not served.info.labels:
            raise no_model(missing(self._watcher))
        self._check_version(version, served.quick.info())
        return served.quick.info()

    async def infer(self, request: Request, name: str, version: str | None) -> Response:
        """Answer a request. Raises ApiError as `served` does, and 422 for what cannot be meant."""
        self.served(name, version)
        length = request.headers.get(JSON_LENGTH)
        async with self._bodies.receive(request, lambda content: self._read(content, length)) as asked:
            made = partial(self._answer, asked, version)
            return await self._predictor.score(asked.texts, made, request.scope["caller"])

    def _answer(self, asked: "_Asked", version: str | None, info: SnapshotInfo, rows: Scores) -> InferAnswer:
        self._check_version(version, info)
        if "scores" in asked.wanted and rows.size > MAX_SCORES:
            raise _refuse(
                "too-large",
                f"{len(asked.texts)} texts and {len(info.labels)} labels are more than {MAX_SCORES} scores",
                'Send fewer texts, or ask for {"outputs": [{"name": "label"}, {"name": "score"}]}.',
            )
        made = _outputs(info.labels, rows)
        return InferAnswer(self.name, info.version, [made[each]() for each in asked.wanted], asked.id)

    def _check_version(self, version: str | None, info: SnapshotInfo) -> None:
        if version not in {None, info.version}:
            raise ApiError(
                404,
                "not-found",
                f"version {version!r} is not served; it is {info.version!r} now",
                "Leave the version out to ask whichever is served.",
            )

    def _read(self, content: bytes, length: str | None) -> "_Asked":
        """Return what a body asks: its JSON, whose length a header may give, and the bytes behind it. Any thread."""
        n = len(content)
        if length is not None:
            if not (length.isascii() and length.isdigit() and len(length) < 12 and int(length) <= n):
                raise _refuse("out-of-range", f"{JSON_LENGTH}: {length[:40]!r} is not within the body's {n}")
            n = int(length)
        asked = self._bodies.decoded(content[:n], _DECODER)
        texts = check_texts(_texts(asked, memoryview(content)[n:], self._settings.max_items), self._settings)
        return _Asked(texts, _wanted(asked), None if asked.id is None else as_name(asked.id))


def router(inference: OpenInference, health: Health, version: str) -> APIRouter:
    """Return the routes under /v2."""
    routes = APIRouter(prefix="/v2", tags=["open inference protocol"])

    @routes.get("", summary="The server", responses=_answer(ServerMetadata))
    async def v2_server() -> Response:
        return json_response(ServerMetadata("driftline", version, ["binary_tensor_data"]))

    @routes.get("/health/live", summary="Whether the process is alive", responses=_answer(Live))
    async def v2_live() -> Response:
        return json_response(Live())

    @routes.get("/health/ready", summary="Whether the server takes requests", responses=_answer(Prepared) | _absent())
    async def v2_ready() -> Response:
        health.check()
        return json_response(Prepared())

    for prefix in ("/models/{name}", "/models/{name}/versions/{version}"):
        _add_model_routes(routes, inference, prefix)
    return routes


def _add_model_routes(routes: APIRouter, inference: OpenInference, prefix: str) -> None:
    suffix = "_version" if "version" in prefix else ""
    described = {"parameters": _parameters(prefix, inference.name)}
    extra = openapi.body(openapi.ref("InferRequest"), {"one text": _EXAMPLE}) | described

    @routes.get(
        prefix,
        operation_id=f"v2_model{suffix}",
        summary="The model and its tensors",
        responses=_answer(ModelMetadata) | _absent(),
        openapi_extra=described,
    )
    async def model(request: Request) -> Response:
        info = inference.served(**request.path_params)
        return json_response(ModelMetadata(inference.name, [info.version], "driftline", [_INPUT], list(_OUTPUTS)))

    @routes.get(
        prefix + "/ready",
        operation_id=f"v2_model_ready{suffix}",
        summary="Whether the model is served",
        responses=_answer(ModelPrepared) | _absent(),
        openapi_extra=described,
    )
    async def ready(request: Request) -> Response:
        inference.served(**request.path_params)
        return json_response(ModelPrepared(inference.name))

    async def infer(request: Request) -> Response:
        params = request.path_params
        return await inference.infer(request, params["name"], params.get("version"))

    routes.add_api_route(
        prefix + "/infer",
        infer,
        methods=["POST"],
        operation_id=f"v2_infer{suffix}",
        summary="Classify a tensor of texts",
        responses=_answer(InferAnswer) | _absent() | openapi.refusals(),
        openapi_extra=extra,
    )


class _Asked(NamedTuple):
    """What a request asks."""

    texts: Sequence[str]
    wanted: list[str]
    id: str | None


def _texts(asked: InferRequest, raw: memoryview, most: int) -> Sequence[str]:
    """Return the texts of a request's one tensor."""
    if len(asked.inputs) != 1:
        raise _refuse("out-of-range", f"there are {len(asked.inputs)} inputs; there must be one, of texts")
    tensor = asked.inputs[0]
    if tensor.datatype != "BYTES":
        raise _refuse("wrong-type", f"input {tensor.name!r} has datatype {tensor.datatype!r}; texts are BYTES")
    size = tensor.parameters.binary_data_size if tensor.parameters is not None else None
    if size is None:
        texts = _flat(bytes(tensor.data), tensor.name)
    elif size == len(raw):
        texts = _unpack(raw, tensor.name, most)
    else:
        raise _refuse("out-of-range", f"{tensor.name!r}: binary_data_size is not the {len(raw)} bytes behind the JSON")
    try:
        shape = _SHAPE.decode(b"[" + b",".join(map(bytes, tensor.shape[: MAX_DEPTH + 1])) + b"]")
    except ValueError as error:
        raise _refuse("wrong-type", f"the shape of {tensor.name!r} must be whole numbers: {error}") from None
    if not 1 <= len(shape) <= MAX_DEPTH or min(shape) < 0 or _product(shape) != len(texts):
        raise _refuse("out-of-range", f"input {tensor.name!r} has {len(texts)} elements, which is not its shape")
    return texts


def _flat(data: bytes, name: str) -> Sequence[str]:
    """Return the strings of nested lists, in their order: as deep as the first of them."""
    depth = 0
    for byte in data:
        depth += byte == _BRACKET
        if depth > MAX_DEPTH or (byte != _BRACKET and byte not in _BLANK):
            break
    if depth > MAX_DEPTH:
        raise _refuse("too-deep", f"the data of {name!r} is nested more than {MAX_DEPTH} deep")
    try:
        level: Any = _decoder_of(depth).decode(data if data else b"null")
    except msgspec.ValidationError as error:
        raise _refuse("wrong-type", f"the data of {name!r} must be strings, nested evenly: {error}") from None
    except ValueError:  # half of a surrogate pair, in what was not looked into so far
        level = _decoder_of(depth).decode(mend_escapes(data))
    for _ in range(depth - 1):
        level = list(chain.from_iterable(level))
    return level if depth else [level]


@cache
def _decoder_of(depth: int) -> "msgspec.json.Decoder[Any]":
    kind: Any = str
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)


def _unpack(raw: memoryview, name: str, most: int) -> Sequence[str]:
    """Return the strings of a tensor's raw bytes: each has its length before it, 4 bytes, the least first."""
    texts: list[str] = []
    at = 0
    while at < len(raw):
        if len(texts) == most:
            raise _refuse("out-of-range", f"there are more than {most} texts in {name!r}")
        end = at + 4 + (_LENGTH.unpack_from(raw, at)[0] if at + 4 <= len(raw) else len(raw))
        if end > len(raw):
            raise _refuse("out-of-range", f"the bytes of {name!r} end within element {len(texts)}")
        try:
            texts.append(str(raw[at + 4 : end], "utf-8"))
        except UnicodeDecodeError:
            raise _refuse("not-utf8", f"element {len(texts)} of {name!r} is not UTF-8") from None
        at = end
    return texts


def _product(shape: Sequence[int]) -> int:
    """Return a shape's number of elements, as long as that is one that could be sent."""
    n = 1
    for length in shape:
        n = min(n * length, 1 << 62)
    return n


def _wanted(asked: InferRequest) -> list[str]:
    names = [output.name for output in asked.outputs or ()]
    if unknown := [name for name in names if name not in _NAMES]:
        raise _refuse("out-of-range", f"there is no output {unknown[0]!r}; there are {', '.join(_NAMES)}")
    return names or _NAMES


def _outputs(labels: Sequence[str], rows: Scores) -> dict[str, Callable[[], OutputTensor]]:
    """Return what makes each output."""
    best = rows.argmax(axis=1)
    n, k = rows.shape
    return {
        "label": lambda: OutputTensor("label", "BYTES", [n], [labels[column] for column in best.tolist()]),
        "score": lambda: OutputTensor("score", "FP64", [n], rows[np.arange(n), best].tolist()),
        "scores": lambda: OutputTensor("scores", "FP64", [n, k], _in_pieces(rows.ravel())),
        "labels": lambda: OutputTensor("labels", "BYTES", [k], list(labels)),
    }


def _in_pieces(numbers: NDArray[np.float64]) -> Any:
    """Return numbers as JSON that is written piece by piece, so that nobody waits for all of them."""
    pieces = (encode(numbers[at : at + PIECE].tolist())[1:-1] for at in range(0, len(numbers), PIECE))
    return msgspec.Raw(b"[" + b",".join(pieces) + b"]")


def _refuse(code: str, message: str, action: str = "See /docs for the body's shape, with an example.") -> ApiError:
    return ApiError(422, code, message, action)


def _answer(kind: type) -> dict[int | str, Any]:
    return openapi.answers(200, kind.__doc__ or "", openapi.ref(kind.__name__))


def _absent() -> dict[int | str, Any]:
    error = openapi.content(openapi.ref("Error"))
    return {
        404: {"description": "No such model, or not this version now.", "content": error},
        503: {"description": "Nothing was learned yet.", "content": error},
    }


def _parameters(prefix: str, model: str) -> list[openapi.Document]:
    known = {
        "name": ("The model; here is one.", model),
        "version": ("The served model's, which changes.", openapi.VERSION),
    }
    return [
        openapi.path_parameter(name, description, {"type": "string"}, example)
        for name, (description, example) in known.items()
        if f"{{{name}}}" in prefix
    ]
