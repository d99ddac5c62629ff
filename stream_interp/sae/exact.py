"""Which features fire, decided exactly, at the speed of a product in fewer bits.

A *screen* multiplies fast and says which entries may fire, all that do among them. Those are computed once more, one by
one, by one routine: in float32 in one order, and in float64 where that is within its own rounding of the threshold. So
what fires, and how much, depends neither on the screen nor on how tokens come together. Its slow twin is the routine
for every entry.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from stream_interp.sae import int8
from stream_interp.sae.canonical import Canonical
from stream_interp.sae.firings import Firings, TooManyFirings, by_token, magnitudes, marked, that_fire
from stream_interp.sae.threads import one_ahead, one_thread_each

BLOCK_TOKENS, TILE_FEATURES = 1_024, 2_304  # a tile of a block is 2.4 MB in 8 bits
_UNIT_ROUNDOFF, _UNDERFLOW = 2.0**-24, 1e-36  # of float32
_SQUARABLE = (1e-12, 1e18)  # norms whose squares float32 holds
_LEAST_TOKENS, _SAMPLE_TOKENS = 256, 2_048  # that the scales of a screen are taken from
_OUTSIDE = 0.1  # of the tokens so far out of the screen's range: it is made anew
_PATIENCE_TOKENS = 8_192  # before that, and twice as many each time: to make it costs as much as some thousand tokens


class Tokens(NamedTuple):
    """`z` [n, d_in], and ‖z‖ [n] float32: 0 of zeros alone, NaN of what is not finite, inf where float32 ends."""

    z: torch.Tensor
    norm: torch.Tensor

    @classmethod
    def of(cls, z: torch.Tensor) -> Tokens:
        """With their norms."""
        return cls(z, _norms(z))


_MayFire = Callable[[Tokens, int], NDArray[np.uint8]]  # and the first feature of a tile → [n, width], 0: cannot fire


class Exact:
    """What fires in an SAE whose features fire each by its own threshold; in float32, on a CPU.

    Attributes:
        seen, outside: tokens since the scales were set, and those of them out of their range.
    """

    def __init__(self, canonical: Canonical) -> None:
        self._W_rows = canonical.W_enc.T.contiguous()
        self._bias, self._threshold, self._magnitude = canonical.b_enc, canonical.threshold, canonical.magnitude
        norm = torch.cat([rows.double().norm(dim=1) for rows in torch.split(self._W_rows, 1_024)])
        self._norm = _to_float32(norm * int8.NORM_ROUNDING)
        self._screen: int8.Int8Screen | None = None
        self._can_screen = int8.available()
        self.seen = self.outside = 0
        self._patience_tokens = _PATIENCE_TOKENS
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says once a process that sparse matrices are new
            self.decide(Tokens.of(self._W_rows[:1]), 0, np.zeros(1, np.int64))

    @property
    def memory_bytes(self) -> int:
        """Beside what the SAE has: its weights once more, and in 8 bits."""
        return self._W_rows.nbytes + self._W_rows.numel()

    def fire(self, z: torch.Tensor, at_most: int | None = None) -> Firings:
        """What fires in `z` [n, d_in], normalised; a NaN does.

        Raises:
            TooManyFirings: more than `at_most`; found out after each block, when one more is under way.
        """
        parts, starts = [Firings.none(z)], range(0, len(self._bias), TILE_FEATURES)
        with torch.inference_mode(), one_thread_each() as run:
            begun = (
                (token, run(self._tile, [(tokens, may_fire, start) for start in starts]))
                for token, tokens, may_fire in self._blocks(z)
            )
            for token, found in one_ahead(begun):
                of_block = by_token(found, len(token))
                parts.append(of_block._replace(token=token[of_block.token]))
                if at_most is not None and (at_most := at_most - len(of_block.token)) < 0:
                    raise TooManyFirings
            return by_token(parts, len(z))

    def _tile(self, unit: tuple[Tokens, _MayFire, int]) -> Firings:
        """What fires in the tokens of a block in the tile that begins at a feature."""
        tokens, may_fire, start = unit
        with torch.inference_mode():
            return self.decide(tokens, start, marked(may_fire(tokens, start)))

    def _blocks(self, z: torch.Tensor) -> Iterator[tuple[torch.Tensor, Tokens, _MayFire]]:
        """(which tokens, they, their screen): first those that the screen in integers can bound."""
        screen, far = self._screen_for(z), torch.arange(len(z))
        if screen is not None:
            q, inside = screen.rounded(z)
            near, far = inside.nonzero().view(-1), (~inside).nonzero().view(-1)
            self.seen, self.outside = self.seen + len(z), self.outside + len(far)
            for token in _in_blocks(near):
                yield token, Tokens.of(z[token]), partial(_above, screen, q[token])
        for token in _in_blocks(far):
            yield token, Tokens.of(z[token]), self._not_ruled_out

    def _screen_for(self, z: torch.Tensor) -> int8.Int8Screen | None:
        """One with scales of this lane's tokens."""
        is_worn = self.seen >= self._patience_tokens and self.outside > _OUTSIDE * self.seen
        sample = z[:_SAMPLE_TOKENS]
        sample = sample[sample.isfinite().all(dim=1)]
        if (self._screen is None or is_worn) and len(sample) >= _LEAST_TOKENS and self._can_screen:
            less_threshold = self._bias.double() - self._threshold
            self._screen = int8.screen(self._W_rows, less_threshold, sample, TILE_FEATURES)
            self._can_screen = self._screen is not None
            self._patience_tokens *= 2 if is_worn else 1
            self.seen = self.outside = 0
        return self._screen

    def _not_ruled_out(self, tokens: Tokens, start: int) -> NDArray[np.uint8]:
        """The screen for all tokens: a product in float32, which is off by its rounding at most."""
        W_rows = self._W_rows[start : start + TILE_FEATURES]
        bound = torch.addmm(self._least(tokens, start), tokens.z, W_rows.T).numpy()
        may_fire: NDArray[np.uint8] = np.logical_not(np.less_equal(bound, 0)).view(np.uint8)
        return may_fire

    def _least(self, tokens: Tokens, start: int) -> torch.Tensor:
        """[width of the tile] bias less threshold, and what float32 rounds away of these tokens, twice."""
        of_tile = slice(start, start + TILE_FEATURES)
        largest = tokens.norm.nan_to_num(nan=0.0, posinf=torch.inf).amax()
        return self._bias[of_tile] - self._threshold[of_tile] + 2 * self._rounding(largest, of_tile)

    def _rounding(self, norm: torch.Tensor, feature: torch.Tensor | slice) -> torch.Tensor:
        """How far off z·W_j + b_j - threshold_j is in float32, whatever the order of the sum, by ‖z‖."""
        finite = self._threshold[feature].nan_to_num(posinf=0.0, neginf=0.0).abs()
        size = norm * int8.NORM_ROUNDING * self._norm[feature] + self._bias[feature].abs() + finite
        rounding = size * (_UNIT_ROUNDOFF * (self._W_rows.shape[1] + 4)) + _UNDERFLOW
        return rounding.where((norm != 0) & (self._norm[feature] != 0), 0.0)  # a product of zeros is exact: no ties

    def decide(self, tokens: Tokens, start: int, place: NDArray[np.int64]) -> Firings:
        """The routine: which of some entries fire.

        Args:
            tokens: n of them.
            start: first feature of a tile.
            place: ascending, in [n, width of the tile] row by row.
        """
        W_rows = self._W_rows[start : start + TILE_FEATURES]
        token, row = (torch.from_numpy(index) for index in np.divmod(place, len(W_rows)))
        dots = _dots(tokens.z, W_rows, token, row)
        open_ = (~(dots + self._least(tokens, start)[row] <= 0)).nonzero().view(-1)  # few are left
        token, feature = token[open_], row[open_] + start
        threshold, bias = self._threshold[feature], self._bias[feature]
        pre = dots[open_] + bias
        fires = ~(pre <= threshold)
        off = (pre - threshold).abs().nan_to_num(nan=0.0)  # NaN: the product overflowed, or a token is one
        near = (off <= self._rounding(tokens.norm[token], feature)).nonzero().view(-1)
        if len(near):
            exact = _dots_in_float64(tokens.z, W_rows, token[near], feature[near] - start) + bias[near]
            fires[near] = ~(exact <= threshold[near])
            pre[near] = exact.float()
        if self._magnitude is not None:
            return magnitudes(Firings(token[fires], feature[fires], pre[fires]), self._magnitude)
        return that_fire(token[fires], feature[fires], pre[fires])


def _above(screen: int8.Int8Screen, q: torch.Tensor, _tokens: Tokens, start: int) -> NDArray[np.uint8]:
    return screen.above(q, start)


def _in_blocks(token: torch.Tensor) -> list[torch.Tensor]:
    """None where there are no tokens; the last may be short, since nothing depends on a block's height here."""
    return [token[start : start + BLOCK_TOKENS] for start in range(0, len(token), BLOCK_TOKENS)]


def _dots(z: torch.Tensor, W_rows: torch.Tensor, token: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """[m] `z[token] · W_rows[row]`, entries ascending; each sum in one order, by a kernel that copies no rows."""
    starts = torch.searchsorted(token, torch.arange(len(z) + 1))
    size = (len(z), len(W_rows))
    entries = torch.sparse_csr_tensor(starts, row, z.new_zeros(len(row)), size=size, check_invariants=False)
    dots: torch.Tensor = torch.sparse.sampled_addmm(entries, z, W_rows.T, beta=0.0).values()
    return dots


def _dots_in_float64(z: torch.Tensor, W_rows: torch.Tensor, token: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """The same in float64; copies each token and each row that it needs once, however many entries there are."""
    (tokens, token), (rows, row) = (
        map(torch.from_numpy, np.unique(index.numpy(), return_inverse=True)) for index in (token, row)
    )
    return _dots(z[tokens].double(), W_rows[rows].double(), token, row)


def _norms(z: torch.Tensor) -> torch.Tensor:
    """Of rows, in float32 wherever that holds their squares."""
    norm: torch.Tensor = z.norm(dim=1)
    smallest, largest = _SQUARABLE
    lost = (~((norm > smallest) & (norm < largest))).nonzero().view(-1)
    if len(lost):
        exact = z[lost].double().norm(dim=1)
        norm[lost] = _to_float32(exact.where(exact.isfinite(), torch.nan))
    return norm


def _to_float32(norm: torch.Tensor) -> torch.Tensor:
    """Of norms in float64; none that is not 0 becomes 0, or loses its last digits to underflow."""
    at_least: torch.Tensor = norm.clamp_min(1e-37).where(norm != 0, 0.0)
    return at_least.float()
