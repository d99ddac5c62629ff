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


def spans(tokens: int, unit: int, blocks: int, short: int) -> dict[str, range]:
    """Which of a request's counted tokens are judged together."""
    if unit == 0 or tokens < unit:
        own = short if unit and short else tokens
        return {"short" if unit else "unit": range(own)} if 0 < own <= tokens else {}
    names = ["unit", *(f"block{k}" for k in range(1, blocks))]
    return {name: range(k * unit, (k + 1) * unit) for k, name in enumerate(names) if (k + 1) * unit <= tokens}


def twin(
    sae: IntegerSAE | None, requests, *, unit=0, blocks=1, short=0, massive="off", cap=None, mean=None,
    whitening=None, every=20, surprise=None, positions=None,
):  # fmt: skip
    """Everything of the window, as plain dicts and lists. `requests`: (acts, special or None, acts_out or None)."""
    d_out = requests[0][0 if requests[0][2] is None else 2].shape[1]
    w = {"requests": 0, "tokens": 0, "too_short": 0, "lengths": [], "starts": [], "tokens_fired": {}, "act_sum": {},
         "act_sq_sum": {}, "x_sum": [0.0] * d_out, "fit": [], "strata": {}, "request_max": {},
         "error_tokens": 0, "x_sq_sum": 0.0, "err_sq_sum": 0.0, "x_dot_xhat": 0.0, "xhat_sq_sum": 0.0, "l0_sum": 0.0,
         "massive_tokens": 0, "norm_sum": 0.0}  # fmt: skip
    for number, (acts, special, acts_out) in enumerate(requests):
        kept = [t for t in range(len(acts)) if special is None or not special[t]]
        w["lengths"].append(len(kept))
        if kept:
            w["starts"].append(kept[0] if positions is None else int(positions[number][kept[0]]))
        tokens, ordinary = [], 0
        for t in kept:
            y = acts[t] if acts_out is None else acts_out[t]
            tokens.append(Token(sae, [float(v) for v in acts[t]], [float(v) for v in y], massive))
            tokens[-1].sampled = not tokens[-1].heavy and in_error(str(number), ordinary, every)
            ordinary += not tokens[-1].heavy
        if len(kept) < max(unit, 1):
            w["too_short"] += 1
        else:
            w["requests"] += 1
            w["tokens"] += len(kept)
            for token in tokens:
                add_token(w, token)
        for name, places in spans(len(kept), unit, blocks, short).items():
            stratum = w["strata"].setdefault(name, {"requests": 0, "fired": {}, "mag_sum": {}, "scores": []})
            peaks = add_span(stratum, [tokens[k] for k in places], sae, cap, mean, whitening, surprise)
            for f, peak in peaks.items() if name == "unit" else ():
                w["request_max"][f] = max(w["request_max"].get(f, 0.0), peak)
    return w


class Token:
    """What there is to know of a token x that is to be explained as y."""

    def __init__(self, sae: IntegerSAE | None, x: list[float], y: list[float], massive: str) -> None:
        self.x, self.y, self.heavy, self.sampled, self.values = x, y, is_massive(x, massive), False, {}
        for f in range(sae.d_sae if sae else 0):
            value = sum(x[j] * float(sae.W_enc[j, f]) for j in range(len(x))) + float(sae.b_enc[f])
            if value > 0:
                self.values[f] = value
        self.xhat = [0.0] * len(y) if sae is None else [
            sum(v * float(sae.W_dec[f, i]) for f, v in self.values.items()) for i in range(len(y))]  # fmt: skip
        self.sq, self.target = sum(v * v for v in x), sum(v * v for v in y)
        self.err = 0.0 if sae is None else sum((a - b) ** 2 for a, b in zip(y, self.xhat, strict=True))


def add_token(w, token: Token) -> None:
    """To the sums over all tokens of requests that count."""
    for f, value in token.values.items():
        add(w["tokens_fired"], f, 1)
        add(w["act_sum"], f, 0 if token.heavy else value)
        add(w["act_sq_sum"], f, 0 if token.heavy else value * value)
    w["l0_sum"] += len(token.values)
    w["massive_tokens"] += token.heavy
    if token.heavy:
        return
    w["norm_sum"] += math.sqrt(token.sq)
    w["fit"].append(token.x)
    if token.sampled:
        w["error_tokens"] += 1
        w["x_sq_sum"] += token.target
        w["err_sq_sum"] += token.err
        w["x_dot_xhat"] += sum(a * b for a, b in zip(token.y, token.xhat, strict=True))
        w["xhat_sq_sum"] += sum(b * b for b in token.xhat)
        w["x_sum"] = [a + b for a, b in zip(w["x_sum"], token.y, strict=True)]


def add_span(stratum, tokens: list[Token], sae, cap, mean, whitening, surprise) -> dict[int, float]:
    """A request to a stratum that has so many of its tokens; the largest activation of each feature that fired."""
    peaks: dict[int, float] = {}
    for token in tokens:
        for f, value in token.values.items():
            peaks[f] = max(peaks.get(f, 0.0), 0.0 if token.heavy else value)
    stratum["requests"] += 1
    for f, peak in peaks.items():
        add(stratum["fired"], f, 1)
        add(stratum["mag_sum"], f, 0.0 if cap is None else min(peak / float(cap[f]), 1.0))
    ordinary = [token for token in tokens if not token.heavy]
    sampled = [token for token in tokens if token.sampled]
    target = sum(token.target for token in sampled)
    nats = [float(surprise[f]) for token in ordinary for f in token.values] if surprise is not None else []
    fired = sorted({f for token in ordinary for f in token.values})
    once = [float(surprise[f]) ** 2 for f in fired] if surprise is not None else []
    stratum["scores"].append([
        average([token.sq for token in ordinary]), distance([token.x for token in ordinary], mean, whitening),
        sum(token.err for token in sampled) / target if sae and target else math.nan,
        average([len(token.values) for token in tokens]) if sae else math.nan,
        average([token.heavy for token in tokens]), average(nats), average(once)])  # fmt: skip
    return peaks


def add(sums: dict[int, float], f: int, value: float) -> None:
    sums[f] = sums.get(f, 0) + value


def average(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def distance(tokens: list[list[float]], mean, whitening) -> float:
    if mean is None or not tokens:
        return math.nan
    middle = [average([x[j] for x in tokens]) - mean[j] for j in range(len(mean))]
    return sum(sum(row[j] * middle[j] for j in range(len(mean))) ** 2 for row in whitening)
