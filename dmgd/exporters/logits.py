"""Logits in few bytes: in half precision or 8 bits, all of them or the largest.

The last axis is that of the classes. What is stored is

    logits    float16 (…, k), or uint8 with the row's `low` and `step`, float16 (…): logit = low + step × number
    indices   uint16 (…, k), the classes of the k largest logits, if not all are stored
    rest      float16 (…), then the logit of every other class
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from dmgd.errors import UsageError

NAMES = ("logits", "low", "step", "indices", "rest")
LEVELS = 255
LARGEST = 60_000.0


@dataclass(frozen=True)
class Coding:
    """How logits are stored: in 16 or 8 `bits`, the `top_k` largest of them (None: all); then all others together keep
    the probability that they have at the `temperature`."""

    bits: int = 16
    top_k: int | None = None
    temperature: float = 1.0

    def encode(self, logits: ndarray) -> dict[str, ndarray]:
        """The arrays that stand for the logits. Raises UsageError if half precision cannot hold them."""
        logits, found = logits.astype(np.float32), dict[str, ndarray]()
        if not np.abs(logits).max(initial=0) <= LARGEST:
            raise UsageError(f"the teacher has logits above {LARGEST:g}, or NaN, which half precision cannot hold")
        if self.top_k:
            order = np.argsort(-logits, -1, kind="stable")
            others = np.take_along_axis(logits, order[..., self.top_k :], -1)
            logits = np.take_along_axis(logits, order[..., : self.top_k], -1)
            others = others / self.temperature
            most = others.max(-1, keepdims=True)
            found["indices"] = order[..., : self.top_k].astype(np.uint16)
            rest = np.log(np.exp(others - most).mean(-1)) + most[..., 0]
            found["rest"] = (rest * self.temperature).astype(np.float16)
        if self.bits == 16:
            return {**found, "logits": logits.astype(np.float16)}
        low = logits.min(-1).astype(np.float16)
        step = ((logits.max(-1) - low) / LEVELS).astype(np.float16)
        numbers = (logits - low[..., None]) / np.where(step > 0, step, 1).astype(np.float32)[..., None]
        return {**found, "logits": np.rint(numbers).clip(0, LEVELS).astype(np.uint8), "low": low, "step": step}


def decode(stored: Mapping[str, ndarray], classes: int) -> ndarray:
    """The logits (…, classes), float32."""
    logits = stored["logits"].astype(np.float32)
    if "low" in stored:
        low, step = (stored[name].astype(np.float32)[..., None] for name in ("low", "step"))
        logits = low + step * logits
    if "indices" in stored:
        whole = np.repeat(stored["rest"][..., None].astype(np.float32), classes, -1)
        np.put_along_axis(whole, stored["indices"].astype(np.int64), logits, -1)
        return whole
    return logits


def probabilities(logits: ndarray, temperature: float) -> ndarray:
    """The softmax of logits / temperature over the last axis."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
