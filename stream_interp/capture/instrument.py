"""`instrument`: forward hooks on named submodules of a torch model, one snapshot per request and hook."""

from __future__ import annotations

import difflib
import inspect
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from stream_interp.capture.shapes import batch_arrays, first_tensor
from stream_interp.errors import UsageError

if TYPE_CHECKING:
    import torch

    from stream_interp.capture.tensors import ArrayLike

PerRequest = Sequence[object] | Callable[[], Sequence[object]] | None


class Producer(Protocol):
    """What the hooks need of a `SnapshotProducer`."""

    def send_batch(
        self,
        hook_name: str,
        request_ids: Sequence[str],
        arrays: Mapping[str, ArrayLike],
        *,
        group_keys: Sequence[str] | None = None,
        segments: Sequence[str] | None = None,
    ) -> bool:
        """Queues one hook's activations."""

    def drop(self, reason: str, detail: str = "", requests: int = 1) -> None:
        """Counts what was lost."""


@contextmanager
def instrument(
    model: torch.nn.Module,
    hooks: Sequence[str],
    producer: Producer,
    request_ids: PerRequest = None,
    group_keys: PerRequest = None,
    segments: PerRequest = None,
) -> Iterator[None]:
    """Sends the outputs of submodules while the context is open: one snapshot per request and hook of each forward.

    The model's results, its autograd graph and its exceptions are untouched, and nothing is ever raised into it: a
    hook that fails is counted by the producer as `hook_error`. A request is a row of the batch. Padding (the zeros of
    an argument `attention_mask [B, T]` of the model's forward) is not sent. Only calls of `model` itself are captured,
    not calls of its submodules from elsewhere, such as a checkpointed layer's second forward; a submodule called
    several times in one forward is captured the first time, the others are counted as `repeated_call`.

    Args:
        model: the module whose forward serves requests.
        hooks: names from `model.named_modules()`. Their output, or the first tensor in its tuple, list or mapping, is
            [B, T, d_in]; [B, d_in] with one token a request; or [T, d_in] of a single request.
        producer: where the snapshots go.
        request_ids: [B] ids of the current batch, or a function that returns them, called once a forward; default:
            new random ids.
        group_keys: [B] the same for requests that hang together (of a session, a customer), None or empty for one that
            does with none, or a function as above.
        segments: [B] the part of the traffic that each belongs to (a product, a country), by one of few names, which
            alerts show; None or empty for one that names none, or a function as above.

    Raises:
        UsageError: a hook that the model does not have.
    """
    modules = _named(model, hooks)
    capture = _Capture(model, producer, request_ids, group_keys, segments)
    with ExitStack() as stack:
        handles = [
            model.register_forward_pre_hook(capture.on_forward, with_kwargs=True),
            *(module.register_forward_hook(partial(capture.on_output, name)) for name, module in modules.items()),
            model.register_forward_hook(capture.on_forward_end, always_call=True),
        ]
        for handle in handles:
            stack.callback(handle.remove)
        yield


def _named(model: torch.nn.Module, hooks: Sequence[str]) -> dict[str, torch.nn.Module]:
    modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    for hook in hooks:
        if hook not in modules:
            close = difflib.get_close_matches(hook, modules, n=5, cutoff=0.3) or list(modules)[:5]
            raise UsageError(f"{type(model).__name__} has no submodule {hook!r}; expected a name such as {close}")
    return {hook: modules[hook] for hook in hooks}


class _Forward:
    """What the hooks of one forward share."""

    def __init__(self, ids: list[str] | None, belongs: dict[str, list[str] | None], mask: torch.Tensor | None) -> None:
        self.ids, self.belongs, self.mask = ids, belongs, mask
        self.seen: set[str] = set()

    def ids_of(self, n_requests: int) -> list[str]:
        """The ids of the rows. Raises ValueError where their number differs from what was given."""
        if self.ids is None:
            self.ids = [str(uuid.uuid4()) for _ in range(n_requests)]
        if len(self.ids) != n_requests:
            raise ValueError(f"{n_requests} requests in the output, {len(self.ids)} request ids")
        return self.ids


def _asked(given: PerRequest, nothing: str = "None") -> list[str] | None:
    """`nothing`: what None becomes."""
    of_batch = given() if callable(given) else given
    return None if of_batch is None else [nothing if one is None else str(one) for one in of_batch]


class _Capture:
    """The hooks of one `instrument`. Forwards may run in several threads, and inside each other."""

    def __init__(
        self,
        model: torch.nn.Module,
        producer: Producer,
        request_ids: PerRequest,
        group_keys: PerRequest,
        segments: PerRequest,
    ) -> None:
        self._producer, self._request_ids = producer, request_ids
        self._belongs = {"group_keys": group_keys, "segments": segments}
        self._signature = inspect.signature(model.forward)
        self._thread = threading.local()

    def on_forward(self, _: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Opens a forward: asks for its request ids, group keys and segments, and finds its mask."""
        forward = None
        try:
            belongs = {name: _asked(given, nothing="") for name, given in self._belongs.items()}
            forward = _Forward(_asked(self._request_ids), belongs, self._mask(args, kwargs))
        except Exception as error:
            self._count("hook_error", error)
        self._stack().append(forward)

    def on_output(self, name: str, _: torch.nn.Module, args: object, output: object) -> None:
        """Sends one hook's output."""
        try:
            stack = self._stack()
            forward = stack[-1] if stack else None
            if forward is None:
                return
            if name in forward.seen:
                n_lost = len(forward.ids or ("unknown",))
                self._producer.drop("repeated_call", f"{name} was called again in one forward", n_lost)
                return
            forward.seen.add(name)
            self._send(name, forward, first_tensor(output))
        except Exception as error:
            self._count("hook_error", error)

    def on_forward_end(self, *_: object) -> None:
        """Closes the forward, also one that raised."""
        stack = self._stack()
        if stack:
            stack.pop()

    def _send(self, name: str, forward: _Forward, output: torch.Tensor) -> None:
        n_given = len(forward.ids) if forward.ids is not None else None
        arrays = batch_arrays(output.detach(), n_given, forward.mask)
        ids = forward.ids_of(len(arrays["acts"]))
        named = {what: names for what, names in forward.belongs.items() if names is not None}
        self._producer.send_batch(name, ids, arrays, **named)

    def _mask(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
        mask = kwargs.get("attention_mask")
        if mask is None and "attention_mask" in self._signature.parameters:
            mask = self._signature.bind_partial(*args, **kwargs).arguments.get("attention_mask")
        return mask

    def _count(self, reason: str, error: Exception) -> None:
        try:
            self._producer.drop(reason, repr(error))
        except Exception:  # a producer of the user's own: its failure is not the model's
            return

    def _stack(self) -> list[_Forward | None]:
        if not hasattr(self._thread, "forwards"):
            self._thread.forwards = []
        forwards: list[_Forward | None] = self._thread.forwards
        return forwards
