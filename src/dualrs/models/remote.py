"""Classifiers behind an HTTP endpoint that answers with labels: a black box is all that smoothing needs."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import httpx

Encoding = Literal["npy", "json"]

_RETRIED = (429, 500, 502, 503, 504)
_LONGEST_PAUSE = 30.0  # seconds


class HttpClassifier:
    """A base classifier that posts noisy images to an endpoint and gets their labels.

    A certificate holds for it if the endpoint is one fixed function of each image. It is asked for as many images as
    the engine's batches have, and for millions in all.

    Protocol: a POST of one batch of B images, float32 of shape (B, C, H, W), as ``application/octet-stream`` (the
    bytes of an ``.npy`` file) or ``application/json`` (``{"inputs": nested lists}``). The answer is JSON: B labels
    from 0 to K − 1, as a list or as ``{"labels": list}``.

    Args:
        url: of the endpoint.
        num_classes: K.
        encoding: of what is posted, "npy" (small and exact) or "json".
        headers: to send with every batch, such as an authorisation.
        timeout: seconds for each attempt.
        retries: further attempts after a connection fails or the server answers 429 or 5xx.
        pause: seconds before the first of them; each further pause is twice as long, up to 30 s, or as long as the
            server's ``Retry-After`` says.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        url: str,
        num_classes: int,
        *,
        encoding: Encoding = "npy",
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        retries: int = 5,
        pause: float = 0.5,
    ) -> None:
        import httpx  # of use here only

        if num_classes < 2 or encoding not in get_args(Encoding) or retries < 0 or not timeout > 0 or pause < 0:
            raise ValueError(
                f"num_classes must be at least 2, encoding one of {get_args(Encoding)}, retries and pause not negative "
                f"and timeout positive; got {num_classes=}, {encoding=}, {retries=}, {pause=} and {timeout=}"
            )
        self.url, self.num_classes = url, num_classes
        self._encoding, self._retries, self._pause = encoding, retries, pause
        self._client = httpx.Client(headers=dict(headers or {}), timeout=timeout)

    def __call__(self, batch: Tensor) -> Tensor:
        """Maps images (B, C, H, W) to logits (B, K): 1 for the label that the endpoint gave, 0 elsewhere.

        Raises:
            OSError: the endpoint cannot be reached, or went on to fail.
            ValueError: it refused the batch, or its answer is not one label for each image.
        """
        labels = self._labels(self._post(batch), len(batch))
        return torch.nn.functional.one_hot(labels, self.num_classes).float()

    def __repr__(self) -> str:
        return f"HttpClassifier({self.url!r}, {self.num_classes})"

    def close(self) -> None:
        """Closes its connections; it takes no further calls."""
        self._client.close()

    def _post(self, batch: Tensor) -> httpx.Response:
        import httpx

        content, kind = _encode(batch, self._encoding)
        failure, wait = "", 0.0
        for attempt in range(1 + self._retries):
            time.sleep(min(wait, _LONGEST_PAUSE))
            wait = self._pause * 2**attempt
            try:
                response = self._client.post(self.url, content=content, headers={"content-type": kind})
            except httpx.TransportError as error:
                failure = f"{type(error).__name__}: {error}"
                continue
            if response.is_success:
                return response
            failure = f"status {response.status_code}: {_start(response)}"
            if response.status_code not in _RETRIED:
                raise ValueError(f"{self.url} refused {tuple(batch.shape)} {self._encoding} with {failure}")
            after = response.headers.get("retry-after", "")
            wait = float(after) if after.isdigit() else wait
        raise OSError(f"{self.url} gave no labels in {1 + self._retries} attempts; the last ended with {failure}")

    def _labels(self, response: httpx.Response, rows: int) -> Tensor:
        try:
            answer: Any = response.json()
        except ValueError as error:
            raise ValueError(f"{self.url} must answer in JSON; it gave {_start(response)!r}") from error
        if isinstance(answer, dict) and "labels" in answer:
            answer = answer["labels"]
        whole = isinstance(answer, list) and all(
            isinstance(each, int) and not isinstance(each, bool) for each in answer
        )
        if not whole:
            raise ValueError(
                f"{self.url} must answer with a list of whole numbers, or one as 'labels'; it gave {_start(response)!r}"
            )
        if len(answer) != rows:
            raise ValueError(f"{self.url} was sent {rows} images and gave {len(answer)} labels")
        if strange := [label for label in answer if not 0 <= label < self.num_classes]:
            raise ValueError(
                f"{self.url} gave label {strange[0]}; with num_classes={self.num_classes} labels go from 0 to "
                f"{self.num_classes - 1}"
            )
        return torch.tensor(answer, dtype=torch.int64)


def _encode(batch: Tensor, encoding: Encoding) -> tuple[bytes, str]:
    images = np.ascontiguousarray(batch.detach().cpu().numpy(), dtype=np.float32)
    if encoding == "npy":
        file = io.BytesIO()
        np.save(file, images, allow_pickle=False)
        return file.getvalue(), "application/octet-stream"
    return json.dumps({"inputs": images.tolist()}).encode(), "application/json"


def _start(response: httpx.Response) -> str:
    text = " ".join(response.text.split())
    return text if len(text) <= 120 else f"{text[:120]}…"
