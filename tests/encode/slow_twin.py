"""The window of a list of requests, computed token by token and feature by feature; shares nothing with ENCODE."""

from __future__ import annotations

import hashlib
import math

import numpy as np


class IntegerSAE:
    """acts = max(x @ W_enc + b_enc, 0); small integers, so that float32 is exact."""

    fingerprint = "f" * 64
    explains = "input"

    def __init__(self, d_in: int, d_sae: int, d_out: int | None = None, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.d_in, self.d_sae = d_in, d_sae
        self.W_enc = rng.integers(-2, 3, (d_in, d_sae)).astype(np.float32)
        self.b_enc = rng.integers(-6, 1, d_sae).astype(np.float32)
        self.W_dec = rng.integers(-1, 2, (d_sae, d_out or d_in)).astype(np.float32)

    def firings(self, x, at_most=None):
        import torch

        from stream_interp.sae.firings import Firings

        return Firings.of((x @ torch.from_numpy(self.W_enc) + torch.from_numpy(self.b_enc)).clamp_min(0))

    def reconstruct_from(self, x, acts):
        import torch

        return acts.dense(len(x), self.d_sae) @ torch.from_numpy(self.W_dec)


def in_error(request_id: str, place: int, every: int) -> bool:
    """Whether the sub-sample of the error terms has a request's counted token."""
    phase = int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest(), "big") % every
    return place % every == phase


def is_massive(x: list[float], rule: str) -> bool:
    total = sum(v * v for v in x)
    if rule.startswith("norm:"):
        return math.sqrt(total) > float(rule[5:])
    return rule == "share" and len(x) >= 256 and max(v * v for v in x) > 0.9 * total


def twin(
    sae: IntegerSAE | None, requests, *, unit=0, massive="off", cap=None, mean=None, whitening=None, every=20,
    surprise=None,
):  # fmt: skip
    """Everything of the window, as plain dicts and lists. `requests`: (acts, special or None, acts_out or None)."""
    d_in = requests[0][0].shape[1]
    d_out = requests[0][0 if requests[0][2] is None else 2].shape[1]
    w = {"requests": 0, "tokens": 0, "too_short": 0, "lengths": [], "fired": {}, "tokens_fired": {}, "act_sum": {},
         "act_sq_sum": {}, "mag_sum": {}, "request_max": {}, "x_sum": [0.0] * d_out, "scores": [], "fit": [],
         "error_tokens": 0, "x_sq_sum": 0.0, "err_sq_sum": 0.0, "x_dot_xhat": 0.0, "xhat_sq_sum": 0.0, "l0_sum": 0.0,
         "massive_tokens": 0, "norm_sum": 0.0}  # fmt: skip
    for number, (acts, special, acts_out) in enumerate(requests):
        kept = [t for t in range(len(acts)) if special is None or not special[t]]
        w["lengths"].append(len(kept))
        if len(kept) < max(unit, 1):
            w["too_short"] += 1
            continue
        w["requests"] += 1
        w["tokens"] += len(kept)
        one = {"fired": set(), "max": {}, "sq": [], "err": [], "target": [], "l0": [], "massive": [], "mean": [],
               "ordinary": [], "nats": []}  # fmt: skip
        for place, t in enumerate(kept):
            x = [float(v) for v in acts[t]]
            y = x if acts_out is None else [float(v) for v in acts_out[t]]
            heavy, in_unit = is_massive(x, massive), unit == 0 or place < unit
            values = {}
            for f in range(sae.d_sae if sae else 0):
                value = sum(x[j] * float(sae.W_enc[j, f]) for j in range(d_in)) + float(sae.b_enc[f])
                if value > 0:
                    values[f] = value
            for f, value in values.items():
                add(w["tokens_fired"], f, 1)
                add(w["act_sum"], f, 0 if heavy else value)
                add(w["act_sq_sum"], f, 0 if heavy else value * value)
                if in_unit:
                    one["fired"].add(f)
                    one["max"][f] = max(one["max"].get(f, 0.0), 0.0 if heavy else value)
            w["l0_sum"] += len(values)
            w["massive_tokens"] += heavy
            if in_unit:
                one["l0"].append(len(values))
                one["massive"].append(heavy)
            if heavy:
                continue
            xhat = [0.0] * len(y) if sae is None else [
                sum(v * float(sae.W_dec[f, i]) for f, v in values.items()) for i in range(len(y))]  # fmt: skip
            sq, target = sum(v * v for v in x), sum(v * v for v in y)
            err = 0.0 if sae is None else sum((a - b) ** 2 for a, b in zip(y, xhat, strict=True))
            w["norm_sum"] += math.sqrt(sq)
            w["fit"].append(x)
            sampled = in_error(str(number), len(one["ordinary"]), every)
            one["ordinary"].append(place)
            if sampled:
                w["error_tokens"] += 1
                w["x_sq_sum"] += target
                w["err_sq_sum"] += err
                w["x_dot_xhat"] += sum(a * b for a, b in zip(y, xhat, strict=True))
                w["xhat_sq_sum"] += sum(b * b for b in xhat)
                w["x_sum"] = [a + b for a, b in zip(w["x_sum"], y, strict=True)]
            if in_unit:
                one["nats"] += [float(surprise[f]) for f in values] if surprise is not None else []
                one["sq"].append(sq)
                one["mean"].append(x)
                one["err"] += [err] * sampled
                one["target"] += [target] * sampled
        for f in one["fired"]:
            add(w["fired"], f, 1)
        for f, peak in one["max"].items():
            w["request_max"][f] = max(w["request_max"].get(f, 0.0), peak)
            add(w["mag_sum"], f, 0.0 if cap is None else min(peak / float(cap[f]), 1.0))
        w["scores"].append([
            average(one["sq"]), distance(one["mean"], mean, whitening),
            sum(one["err"]) / sum(one["target"]) if sae and sum(one["target"]) else math.nan,
            average(one["l0"]) if sae else math.nan, average(one["massive"]), average(one["nats"])])  # fmt: skip
    return w


def add(sums: dict[int, float], f: int, value: float) -> None:
    sums[f] = sums.get(f, 0) + value


def average(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def distance(tokens: list[list[float]], mean, whitening) -> float:
    if mean is None or not tokens:
        return math.nan
    middle = [average([x[j] for x in tokens]) - mean[j] for j in range(len(mean))]
    return sum(sum(row[j] * middle[j] for j in range(len(mean))) ** 2 for row in whitening)
