"""A network that writes, taken apart: shorter sequences, prefill and decode give the numbers of the whole sequence, to
the bit."""

import numpy as np
import pytest

from tvm_ergo import frontend
from tvm_ergo.codegen.compile import compile_function
from tvm_ergo.relay_passes import interpreter_ergo  # noqa: F401  (its import gives the interpreter the integer dialect)
from tvm_ergo.relay_passes.attention import lengths, lower, steps
from tvm_ergo.relay_passes.attention.find import calibrated, find_sites
from tvm_ergo.relay_passes.compile.partition import Partition, chip_functions
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.micro.calibrate import Method, observe
from tvm_ergo.relay_passes.micro.lower_quantized import host_fallbacks
from tvm_ergo.relay_passes.relax_utils import main_of
from tvm_ergo.relay_passes.support import FunctionView
from tvm_ergo.target.chip import chip
from tvm_ergo.target.errors import UnsupportedError
from tvm_ergo.target.isa import PutRows
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.program import BufferKind

from . import decoders, nets

CHIP = chip("ergo/1")
FORMS = {"positions added": (False, decoders.HEADS), "rotary, grouped heads": (True, decoders.GROUPS)}


def calibrated_net(model, feeds):
    """``(normal form, what calibration saw)``."""
    mod = normalize(frontend.load(model).mod)
    view = FunctionView(main_of(mod))
    seen = observe(mod, feeds, tensors=calibrated(view, find_sites(view)))
    return mod, lower.seen_of(seen, Method.MINMAX, 100.0)


@pytest.fixture(scope="module", params=FORMS)
def net(request):
    """``(normal form, ranges, token numbers, logits of the whole sequence)``."""
    feeds = decoders.samples(3)
    mod, seen = calibrated_net(decoders.decoder(*FORMS[request.param]), feeds)
    return mod, seen, feeds[0]["ids"], Interpreter(lower.lower(mod, seen)).run(feeds[0])[0]


@pytest.mark.parametrize("tokens", [2, 5, 16])
def test_the_first_tokens_alone(net, tokens):
    mod, seen, ids, whole = net
    made = lower.lower(lengths.at_length(mod, tokens), seen, whole=mod)
    assert not host_fallbacks(made)
    np.testing.assert_array_equal(Interpreter(made).run({"ids": ids[:, :tokens]})[0], whole[:, :tokens])


def test_token_by_token(net):
    """A prompt that fills the prefill in part, then one token after the other, on two lengths of decode."""
    mod, seen, ids, whole = net
    first, decodes = steps.prefill(mod, seen, 8), [steps.decode(mod, seen, n) for n in (12, decoders.S)]
    assert not any(host_fallbacks(s.mod) for s in (first, *decodes))
    assert [c.shape[-2] for c in first.caches] == [decoders.S] * 4
    caches = {c.name: np.full(c.shape, 77, np.int8) for c in first.caches}  # what was there before counts for nothing
    padded = np.where(np.arange(8) < 5, ids[:, :8], 0)
    logits, *made = Interpreter(first.mod).run({"ids": padded, **caches})
    np.testing.assert_array_equal(logits[:, :5], whole[:, :5])
    runs = [Interpreter(s.mod) for s in decodes]
    for position in range(5, decoders.S):
        feed = {"ids": ids[:, position : position + 1], "position": np.array([position], np.int32)}
        logits, *made = runs[position >= 12].run({**feed, **dict(zip(caches, made))})
        np.testing.assert_array_equal(logits[:, 0], whole[:, position])


def test_caches_stay_where_they_are(net):
    """On the strict machine: handed on in place, at the bottom of the activations, in all Programs alike; a step moves
    its own rows only."""
    mod, seen, ids, whole = net
    made = [steps.prefill(mod, seen, 8), steps.decode(mod, seen, decoders.S)]
    programs = []
    for stepped in made:
        ((name, func),) = chip_functions(Partition()(stepped.mod))
        programs.append(compile_function(func, CHIP, name=name))
    places = []
    for program in programs:
        inputs, outputs = ({p.name: p.operand for p in ports} for ports in (program.inputs, program.outputs))
        kept = program.meta["states"]
        assert [s["input"] for s in kept] == [c.name for c in made[0].caches]
        assert all(inputs[s["input"]] == outputs[s["output"]] for s in kept)
        places.append([s["addr"] - program.meta["constant_bytes"] for s in kept])
        size = decoders.S * inputs["keys_0"].size_bytes // decoders.S
        assert places[-1] == [n * size for n in range(4)]
        held = [b for b in program.buffers if b.kind == BufferKind.STATE]
        assert [(b.first, b.last) for b in held] == [(0, len(program.instructions))] * 4
        assert sum(isinstance(i, PutRows) for i in program.instructions) == 4
    assert places[0] == places[1]
    Machine(programs[1], CHIP, strict=True)


def test_what_cannot_be_taken_apart():
    feeds = nets.form("no mask")[1]
    mod, seen = calibrated_net(nets.form("no mask")[0], feeds)
    with pytest.raises(UnsupportedError, match="token by token") as caught:
        steps.decode(mod, seen, 4)
    assert "causal" in str(caught.value)
    with pytest.raises(UnsupportedError, match="a sequence of 99 tokens"):
        lengths.at_length(mod, 99)
