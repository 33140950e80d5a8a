"""A server whose answers take numpy's and Pillow's native code; `workers` processes of it."""

from __future__ import annotations

import argparse
import hashlib
import io
import os

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def answer(request: Request) -> JSONResponse:
    seed = int(request.path_params["seed"])
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 48, 3), np.uint8)
    image = Image.fromarray(pixels).resize((24, 32), Image.Resampling.LANCZOS)
    image.save(file := io.BytesIO(), "PNG")
    values = np.linalg.svd(np.asarray(image.convert("L"), float), compute_uv=False)
    return JSONResponse(
        {
            "process": os.getpid(),
            "png": hashlib.sha256(file.getvalue()).hexdigest(),
            "largest": round(float(values[0]), 6),
        }
    )


app = Starlette(routes=[Route("/{seed:int}", answer)])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    uvicorn.run("served:app", port=options.port, workers=options.workers, log_level="warning")


if __name__ == "__main__":
    main()
