"""How fast is FastAPI with pydantic models, which predicts nothing? `uvicorn bench.served.fastapi_pydantic:app`."""

from fastapi import FastAPI
from pydantic import BaseModel


class Request(BaseModel):
    """A text."""

    text: str


class Prediction(BaseModel):
    """What is said of it."""

    label: str
    score: float
    scores: dict[str, float]


app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> Prediction:
    """Answer with a constant."""
    del request
    return Prediction(label="spam", score=0.9, scores={"spam": 0.9, "ham": 0.1})
