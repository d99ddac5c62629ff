from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from stream_interp.capture import SnapshotProducer, instrument
from stream_interp.errors import UsageError

from .fakes import FakeProducer, FakeTransport


class Layer(nn.Module):
    def __init__(self, d: int, wrap=lambda x: x) -> None:
        super().__init__()
        self.linear, self.wrap = nn.Linear(d, d), wrap

    def forward(self, x):
        return self.wrap(torch.tanh(self.linear(x)))


class Model(nn.Module):
    """[B, T, 4] → [B, T, 4]; `layer.1` gives what `wrap` makes of its output."""

    def __init__(self, wrap=lambda x: x, unwrap=lambda x: x) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Layer(4), Layer(4, wrap)])
        self.unwrap = unwrap
        self.body = lambda x: self.unwrap(self.layer[1](self.layer[0](x)))

    def forward(self, x, attention_mask=None):
        return self.body(x)


X = torch.randn(3, 5, 4)
MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])


@pytest.fixture
def producer():
    return FakeProducer()


def n_hooks(model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize(
    ("wrap", "unwrap"),
    [
        (lambda x: x, lambda x: x),
        (lambda x: (x, None), lambda o: o[0]),
        (lambda x: ("text", x), lambda o: o[1]),
        (lambda x: {"flag": 1, "hidden": x}, lambda o: o["hidden"]),
    ],
    ids=["tensor", "tuple", "tuple-first-tensor", "mapping"],
)
def test_every_hook_sends_the_output_it_saw(producer, wrap, unwrap):
    model = Model(wrap, unwrap)
    expected = model(X)
    with instrument(model, hooks=["layer.0", "layer.1"], producer=producer, request_ids=[1, "b", "c"]):
        torch.testing.assert_close(model(X), expected, rtol=0, atol=0)
    (first,), (second,) = producer.named("layer.0"), producer.named("layer.1")
    assert first[1] == second[1] == ["1", "b", "c"]
    np.testing.assert_array_equal(second[2]["acts"], expected.detach().numpy())
    assert second[2]["positions"].tolist() == [[0, 1, 2, 3, 4]] * 3
    assert producer.drops == []


@pytest.mark.parametrize(
    "call", [lambda m: m(X, attention_mask=MASK), lambda m: m(X, MASK)], ids=["kwarg", "positional"]
)
def test_one_snapshot_per_request_without_padding(call):
    transport = FakeTransport()
    model = Model()
    with SnapshotProducer(model_id="m", transport=transport) as producer:  # noqa: SIM117
        with instrument(model, hooks=["layer.1"], producer=producer, request_ids=["a", "b", "c"]):
            output = call(model).detach().numpy()
    got = {s.request_id: s for s in transport.snapshots()}
    for row, request_id in enumerate("abc"):
        np.testing.assert_array_equal(got[request_id].acts, output[row][MASK[row].bool().numpy()])
        assert got[request_id].positions.tolist() == list(range(int(MASK[row].sum())))


def test_ids_are_shared_by_the_hooks_of_a_forward_and_new_in_the_next(producer):
    model = Model()
    with instrument(model, hooks=["layer.0", "layer.1"], producer=producer):
        model(X)
        model(X)
    ids = [batch[1] for batch in producer.batches]
    assert ids[0] == ids[1]
    assert ids[2] == ids[3]
    assert len({*ids[0], *ids[2]}) == 6


def test_a_function_is_asked_once_a_forward(producer):
    batches = iter([["a", "b", "c"], ["d", "e", "f"]])
    model = Model()
    with instrument(model, hooks=["layer.0", "layer.1"], producer=producer, request_ids=lambda: next(batches)):
        model(X)
        model(X)
    assert [batch[1][0] for batch in producer.batches] == ["a", "a", "d", "d"]


@pytest.mark.parametrize(
    ("x", "ids", "mask", "shape"),
    [
        (torch.randn(3, 4), None, None, (3, 1, 4)),
        (torch.randn(3, 4), ["a", "b", "c"], None, (3, 1, 4)),
        (torch.randn(7, 4), ["a"], None, (1, 7, 4)),
        (torch.randn(1, 4), ["a"], None, (1, 1, 4)),
        (torch.randn(5, 4), None, torch.ones(1, 5), (1, 5, 4)),
        (torch.randn(15, 4), None, MASK, (3, 5, 4)),
        (torch.randn(3, 4), None, MASK, (3, 1, 4)),
    ],
)
def test_two_dimensional_outputs(producer, x, ids, mask, shape):
    model = Model()
    with instrument(model, hooks=["layer.0"], producer=producer, request_ids=ids):
        model(x, attention_mask=mask)
    assert producer.drops == []
    assert producer.batches[0][2]["acts"].shape == shape


def raising_ids():
    raise RuntimeError("ids")


@pytest.mark.parametrize(
    ("x", "options", "mask", "message"),
    [
        (X, {"request_ids": ["only one"]}, None, "3 requests in the output, 1 request ids"),
        (X, {"request_ids": raising_ids}, None, "ids"),
        (X, {"request_ids": 5}, None, "not iterable"),
        (X, {}, torch.ones(3, 9), "attention_mask"),
        (X, {}, torch.ones(3, 1, 1, 5), "attention_mask"),
        (X, {}, "a text", ""),
        (torch.randn(2, 3, 5, 4), {}, None, "expected"),
        (torch.randn(4), {}, None, "expected"),
    ],
)
def test_what_goes_wrong_is_counted_never_raised(producer, x, options, mask, message):
    model = Model()
    expected = model(x)
    with instrument(model, hooks=["layer.0"], producer=producer, **options):
        torch.testing.assert_close(model(x, attention_mask=mask), expected)
    assert [drop[0] for drop in producer.drops] == ["hook_error"]
    assert message in producer.drops[0][1]
    assert producer.batches == []


def test_an_output_without_a_tensor(producer):
    model = Model(lambda x: SimpleNamespace(x=x), lambda o: o.x)
    with instrument(model, hooks=["layer.1"], producer=producer):
        model(X)
    assert "SimpleNamespace" in producer.drops[0][1]


def test_a_broken_producer_does_not_reach_the_model():
    class Broken:
        def send_batch(self, *_, **__):
            raise RuntimeError("send")

        def drop(self, *_):
            raise RuntimeError("drop")

    model = Model()
    with instrument(model, hooks=["layer.0"], producer=Broken()):
        model(X)
        with pytest.raises(RuntimeError, match="shape"):
            model(torch.randn(2, 3))


def test_hooks_are_removed_on_exit_and_on_errors(producer):
    model = Model()
    with instrument(model, hooks=["layer.0"], producer=producer):
        assert n_hooks(model) == 3
    assert n_hooks(model) == 0
    with pytest.raises(KeyError), instrument(model, hooks=["layer.0"], producer=producer):
        raise KeyError
    with pytest.raises(UsageError), instrument(model, hooks=["layer.0", "nope"], producer=producer):
        pass
    assert n_hooks(model) == 0
    model(X)
    assert producer.batches == []


def test_a_failing_forward_leaves_a_clean_state(producer):
    model = Model()
    with instrument(model, hooks=["layer.0", "layer.1"], producer=producer, request_ids=["a", "b", "c"]):
        model.unwrap = lambda _: raising_ids()
        with pytest.raises(RuntimeError, match="ids"):
            model(X)
        model.layer[0](X)  # outside a forward of the model
        assert len(producer.batches) == 2
        model.unwrap = lambda x: x
        model(X)
    assert len(producer.batches) == 4
    assert producer.drops == []


@pytest.mark.parametrize("name", ["layers.1", ""])
def test_unknown_names_get_close_matches(producer, name):
    with pytest.raises(UsageError, match=r"Model has no submodule .*layer\.1"), instrument(Model(), [name], producer):
        pass


def test_training_is_untouched(producer):
    model, x = Model(), X.clone().requires_grad_()
    model(x).sum().backward()
    expected = x.grad.clone()
    x.grad = None
    with instrument(model, hooks=["layer.0", "layer.1"], producer=producer):
        output = model(x)
    output.sum().backward()
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inference(mode):
    transport, model = FakeTransport(), Model()
    with SnapshotProducer(model_id="m", transport=transport) as producer, mode():  # noqa: SIM117
        with instrument(model, hooks=["layer.1"], producer=producer):
            expected = model(X).clone()
    np.testing.assert_array_equal([s.acts for s in transport.snapshots()], expected.numpy())


def test_checkpointed_layers_are_captured_once(producer):
    model, x = Model(), X.clone().requires_grad_()
    model.body = lambda x: checkpoint(model.layer[0], x, use_reentrant=False)
    with instrument(model, hooks=["layer.0"], producer=producer):
        model(x).sum().backward()
    assert len(producer.batches) == 1


def test_a_layer_called_twice_is_captured_once(producer):
    model = Model()
    model.body = lambda x: model.layer[0](model.layer[0](x))
    with instrument(model, hooks=["layer.0"], producer=producer):
        model(X)
    np.testing.assert_array_equal(producer.batches[0][2]["acts"], model.layer[0](X).detach().numpy())
    assert [(drop[0], drop[2]) for drop in producer.drops] == [("repeated_call", 3)]


def test_contexts_may_nest(producer):
    other, model = FakeProducer(), Model()
    with instrument(model, ["layer.0"], producer, ["a", "b", "c"]):
        with instrument(model, ["layer.0", "layer.1"], other):
            model(X)
        model(X)
    assert len(producer.batches) == 2
    assert len(other.batches) == 2


def test_threads_do_not_mix(producer):
    model, ids = Model(), threading.local()
    barrier = threading.Barrier(4)

    def serve(t: int) -> None:
        for i in range(25):
            ids.now = [f"{t}-{i}-{row}" for row in range(3)]
            barrier.wait()
            model(torch.full((3, 5, 4), float(t)))

    def layer_of(t: int) -> np.ndarray:
        return model.layer[0](torch.full((3, 5, 4), float(t))).detach().numpy()

    with instrument(model, ["layer.0", "layer.1"], producer, lambda: ids.now):
        threads = [threading.Thread(target=serve, args=(t,)) for t in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert producer.drops == []
    assert len(producer.batches) == 200
    for _, request_ids, arrays in producer.named("layer.0"):
        np.testing.assert_allclose(arrays["acts"], layer_of(int(request_ids[0][0])), rtol=1e-5)


def test_a_model_inside_a_model(producer):
    inner = Model()
    outer = nn.Sequential(inner, Layer(4))
    with instrument(outer, ["0.layer.0", "1"], producer, ["a", "b", "c"]):
        outer(X)
    assert [batch[0] for batch in producer.batches] == ["0.layer.0", "1"]


@pytest.mark.parametrize("named", ["group_keys", "segments"])
def test_what_requests_belong_to_is_asked_for_once_a_forward(producer, named):
    asked = iter([["s1", None, 2], ["s3"] * 3])
    model = Model()
    with instrument(model, hooks=["layer.0", "layer.1"], producer=producer, **{named: lambda: next(asked)}):
        model(X)
        model(X)
    assert getattr(producer, named) == [["s1", "", "2"]] * 2 + [["s3"] * 3] * 2
