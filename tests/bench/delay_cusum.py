"""The oracle that delays are compared with: a Bernoulli CUSUM that knows the rate after the change.

S ← max(0, S + log-likelihood ratio), alarm at S ≥ h: of all rules with its ARL none has a shorter worst-case delay
(Moustakides, Ann. Statist. 14, 1986), which is that of a fresh start. On a lattice on which a firing and a silent
request are whole steps S is a Markov chain, and its run lengths are exact (Brook, Evans: Biometrika 59, 1972; for
Bernoulli data Reynolds, Stoumbos: J. Quality Technology 31, 1999). Where silence is one step of the lattice, one
recursion over the states gives them for every threshold at once, and only adds terms of one sign.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stream_interp.drift.esr import Floats

TOLERANCE = 0.015  # relative, of the ratio of the two steps on the lattice
RESET = 2**40  # steps down that lead to 0 from anywhere: a firing where none can be after the change


class Steps(NamedTuple):
    """Lattice steps of S at a firing and at a silent request; one is up, one down."""

    fired: int
    silent: int


class Cusum(NamedTuple):
    """Expected requests from a fresh start until the alarm: without the change, and with it from the first request."""

    arl: float
    delay: float


def lattice(p: float, q: float) -> Steps:
    """The coarsest lattice whose steps, for rates p and then q, have the log-likelihoods' ratio within TOLERANCE."""
    direction = 1 if q > p else -1
    if q == 0:
        return Steps(-RESET, 1)
    exact = abs(np.log(q / p) / np.log((1 - q) / (1 - p)))
    silent = next(d for d in range(1, 100) if abs(round(exact * d) / (exact * d) - 1) < TOLERANCE)
    return Steps(direction * round(exact * silent), -direction * silent)


def oracle(p: float, q: float, arl: float) -> Cusum:
    """The CUSUM for a change from p to q with ARL `arl`, a lot deciding between the two thresholds next to it."""
    steps, most = lattice(p, q), 64
    while (arls := run_lengths(steps, p, most))[-1] < arl:
        most *= 2
    return Cusum(arl, float(np.interp(arl, arls, run_lengths(steps, q, most))))


def run_lengths(steps: Steps, rate: float, most: int) -> Floats:
    """[most] expected requests until the alarm, for thresholds of 1 to `most` steps, of a stream at `rate`."""
    if steps.silent == 1:
        return _silence_raises(-steps.fired, rate, most)
    if steps.silent == -1:
        return _silence_lowers(steps.fired, rate, most)
    return np.array([run_length_by_solving(steps, rate, h) for h in range(1, most + 1)])


def run_length_by_solving(steps: Steps, rate: float, threshold: int) -> float:
    """The slow twin, for any steps: f = 1 + P·f over the states below the threshold."""
    system = np.eye(threshold)
    for state in range(threshold):
        for step, chance in ((steps.fired, rate), (steps.silent, 1 - rate)):
            if (to := max(state + step, 0)) < threshold:
                system[state, to] -= chance
    return float(np.linalg.solve(system, np.ones(threshold))[0])


def _silence_raises(down: int, rate: float, most: int) -> Floats:
    """f(s) = f(0) − k(s) with f = 0 at the threshold: k there is the run length."""
    k = [0.0]
    for s in range(most):
        k.append((1 + k[s] - rate * k[max(s - down, 0)]) / (1 - rate))
    return np.array(k[1:])


def _silence_lowers(up: int, rate: float, most: int) -> Floats:
    """f = c·g(y) − k(y), y steps below the threshold: g solves f = P·f, −k is a particular solution, c fits S = 0."""
    g, k = np.zeros(most + 1 + up), np.zeros(most + 1 + up)  # [up + y]: nothing is left to run at y ≤ 0
    g[up + 1] = 1
    odds = rate / (1 - rate)
    for y in range(up + 1, up + most):
        g[y + 1] = g[y] + odds * (g[y] - g[y - up])
        k[y + 1] = k[y] + odds * (k[y] - k[y - up]) + 1 / (1 - rate)
    rise_g, rise_k = g[up + 1 :] - g[1 : most + 1], k[up + 1 :] - k[1 : most + 1]
    of_start: Floats = (1 / rate + rise_k) / rise_g * g[up + 1 :] - k[up + 1 :]
    return of_start
