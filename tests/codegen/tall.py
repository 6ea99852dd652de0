"""Random graphs of pictures of many rows, random plans in space of them, and a chain with wide tensors."""

from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.space import make_space_plan
from tvm_ergo.codegen.space.order import Needs, tileable
from tvm_ergo.codegen.space.stages import Stage, widened
from tvm_ergo.codegen.testing import RandomFunction
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.chip import chip
from tvm_ergo.target.machine import Machine

CHIP = chip("ergo/1")
SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}
RANDOMS = st.randoms(use_true_random=False)
SPATIAL = (
    "conv2d",
    "overpadded",
    "depthwise",
    "depthwise",
    "pool",
    "add",
    "add",
    "mul",
    "table",
    "concat",
    "pad",
    "reduce",
    "excite",
    "compress",
    "compress",
)


class TallFunction(RandomFunction):
    """Pictures of enough rows that buffers roll."""

    def _shape(self):
        return (1, self.random.randint(8, 24), self.random.randint(2, 5), self.random.randint(1, 4))

    def excite(self) -> None:
        """Scales a picture by what its average says."""
        x = self.pick(4)
        count = x.ty.shape[1] * x.ty.shape[2]
        if (
            int(x.ty.shape[0]) > 1
            or (
                mean := self.emit(
                    dialect.ReduceSum((1, 2), True, self.zero_point(), **self.scale(70 * int(count)), **self.clip()), x
                )
            )
            is None
        ):
            return
        gate = self.emit(dialect.Table(), mean, self.constant((256,)))
        self.emit(
            dialect.Mul(a_zp=self.zero_point(), b_zp=self.zero_point(), **self.scale(8000), **self.clip()), x, gate
        )


def tall(random: Random, ops: int = 10) -> TallFunction:
    return TallFunction(random).grow(ops, SPATIAL)


def random_bands(random: Random, graph, needs: Needs) -> dict[int, int]:
    return {
        n.id: random.choice([1, 1, 2, random.randint(1, needs.height(n))])
        for n in graph.nodes
        if needs.bandable[n.id] and random.random() < 0.9
    }


def random_stages(random: Random, graph) -> dict[int, Stage]:
    """Some nodes with some of what they read, in tiles of any size."""
    stages, taken = {}, set()
    for last in reversed(graph.nodes):
        if last.id in taken or not tileable(graph, last) or random.random() < 0.4:
            continue
        nodes = [last]
        for _ in range(random.randint(1, 5)):
            more = [
                n
                for n in widened(graph, lambda n: tileable(graph, n), nodes)
                if n.id not in taken and n.id not in stages
            ]
            nodes += random.sample(more, random.randint(0, len(more)))
        inner = tuple(sorted(n.id for n in nodes[1:]))
        taken.update(inner)
        stages[last.id] = Stage(inner, random.choice([0, 1, 2, 3]), random.choice([0, 0, 1, 2]))
    return stages


def random_plan(random: Random, graph, options=Options()):
    needs = Needs(graph)
    bands = random_bands(random, graph, needs)
    barriers = {n.id for n in graph.nodes if random.random() < 0.15}
    stages = random_stages(random, graph) if random.random() < 0.7 else {}
    return make_space_plan(
        graph,
        bands,
        options,
        barriers=barriers,
        stages=stages,
        needs=needs,
        slack=random.choice([0, 0, 0.3]),
        random_orders=2,
    )


def run(program, inputs):
    return Machine(program, CHIP, strict=True).run(inputs).outputs


def assert_same(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a.reshape(b.shape), b)


def chain(rows=32, width=8, wide=16, blocks=2) -> RandomFunction:
    """Expand, depthwise, project, add: the network this exists for, seeded."""
    function = RandomFunction(Random(7))
    function.params = [relax.Var("x", relax.TensorType((1, rows, width, 4), "int8"))]
    function.values = list(function.params)
    from tvm_ergo.relay_passes import dialect

    def conv(x, out):
        channels = int(x.ty.shape.values[3])
        weights = function.constant((out, 1, 1, channels))
        return function.emit(dialect.Conv2d(out_zp=0), x, weights, *function._channel_vectors(out, channels))

    function.emit = lambda op, *args: _emit(function, op, *args)
    for _ in range(blocks):
        source = function.values[-1]
        x = conv(source, wide)
        weights = function.constant((3, 3, wide))
        x = function.emit(
            dialect.DepthwiseConv2d(padding=(1, 1, 1, 1)), x, weights, *function._channel_vectors(wide, 9)
        )
        x = conv(x, 4)
        function.emit(dialect.Add(a_zp=0, b_zp=0, a_mult=2**20, b_mult=2**20, shift=20), source, x)
    return function


def _emit(function, op, *args):
    var = relax.DataflowVar(f"{op.op_name}_{len(function.bindings)}", op.call(*args).ty)
    function.bindings.append(relax.VarBinding(var, op.call(*args)))
    function.values.append(var)
    return var


@pytest.fixture(scope="module")
def wide_chain():
    function = chain()
    mod = function.finish()
    return mod, from_function(mod["main"]), function.arrays_for_inputs()
