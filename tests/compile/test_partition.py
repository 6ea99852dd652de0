"""Partition: few convex regions, a valid module, the same values."""

from random import Random

import numpy as np
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.codegen.graph import from_function
from tvm_ergo.codegen.testing import RandomFunction
from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.compile.partition import Partition, chip_functions
from tvm_ergo.relay_passes.cpu import build_cpu

SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}
LUT = relax.const(np.roll(np.arange(-128, 128), 3).astype("int8"))


class Mixed(RandomFunction):
    """A random function in which host ops (float round trips) stand between chip ops."""

    def host(self) -> None:
        x = self.pick()
        for make in (
            lambda v: relax.op.astype(v, "float32"),
            lambda v: relax.op.multiply(v, relax.const(0.5)),
            relax.op.floor,
            lambda v: relax.op.astype(v, "int8"),
        ):
            call = relax.BlockBuilder().normalize(make(x))
            x = relax.DataflowVar(f"host_{len(self.bindings)}", call.ty)
            self.bindings.append(relax.VarBinding(x, call))
        self.values.append(x)


def random_module(random: Random, ops: int = 14):
    function = Mixed(random, random.randint(1, 2))
    kinds = ("table", "add", "extremum", "concat", "split", "transpose", "conv2d", "host", "host")
    return function.grow(random.randint(1, ops), kinds=kinds), random.randint(1, 3)


def chain_depth(func: relax.Function) -> int:
    """Slow twin of the number of regions: most chip runs on any path, by following every path."""
    values = {b.var: b.value for block in func.body.blocks for b in block.bindings}

    def runs(var, above_is_chip):
        if var not in values:
            return 0
        chip = dialect.is_ergo_call(values[var])
        args = relax.analysis.free_vars(values[var])
        return (chip and not above_is_chip) + max((runs(a, chip) for a in args), default=0)

    live, stack = set(), [*relax.analysis.free_vars(func.body.body)]
    while stack:
        var = stack.pop()
        if var not in live:
            live.add(var)
            stack.extend(relax.analysis.free_vars(values[var]) if var in values else [])
    return max((runs(v, False) for v in live), default=0)


@settings(max_examples=60, **SLOW)
@given(st.randoms(use_true_random=False))
def test_regions_are_valid_and_as_few_as_the_longest_path_needs(random):
    function, outputs = random_module(random, 9)
    mod = relax.transform.DeadCodeElimination()(function.finish(outputs))
    result = Partition()(mod)
    relax.analysis.well_formed(result)  # raises
    regions = chip_functions(result)
    assert len(regions) == chain_depth(mod["main"])
    calls = [b.value for block in result["main"].body.blocks for b in block.bindings]
    assert not any(dialect.is_ergo_call(c) for c in calls)
    total = 0
    for name, region in regions:
        assert region.attrs["Codegen"] == "ergo" and region.attrs["global_symbol"] == name
        total += len(from_function(region).nodes)  # reads as a chip function, types agree
    assert total == sum(dialect.is_ergo_call(b.value) for block in mod["main"].body.blocks for b in block.bindings)


@settings(max_examples=12, **SLOW)
@given(st.randoms(use_true_random=False))
def test_the_partitioned_module_computes_the_same(random):
    function, outputs = random_module(random)
    mod, inputs = function.finish(outputs), function.arrays_for_inputs()
    for a, b in zip(build_cpu(Partition()(mod))(*inputs.values()), build_cpu(mod)(*inputs.values()), strict=True):
        np.testing.assert_array_equal(a, b)


def module(body):
    """``main(x i8[2,6])`` from a function that gets a recorder ``emit(op or call, *args)`` and x, and gives the
    outputs."""
    x, bindings = relax.Var("x", relax.TensorType((2, 6), "int8")), []

    def emit(op, *args):
        call = op.call(*args) if isinstance(op, dialect.ErgoOp) else relax.BlockBuilder().normalize(op)
        var = relax.DataflowVar(f"v{len(bindings)}", call.ty)
        bindings.append(relax.VarBinding(var, call))
        return var

    outputs = body(emit, x)
    result = relax.Var("result", relax.TupleType([o.ty for o in outputs]))
    bindings.append(relax.VarBinding(result, relax.Tuple(outputs)))
    func = relax.Function([x], relax.SeqExpr([relax.DataflowBlock(bindings)], result), result.ty)
    return relax.transform.Normalize()(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}))


def test_a_diamond_through_the_host_is_split():
    """a -> host -> b and a -> b: one region would leave itself and return."""

    def body(emit, x):
        a = emit(dialect.Table(), x, LUT)
        host = emit(relax.op.astype(emit(relax.op.astype(a, "float32")), "int8"))
        return [emit(dialect.Maximum(), a, host)]

    result = Partition()(module(body))
    assert [name for name, _ in chip_functions(result)] == ["ergo_main_0", "ergo_main_1"]


def test_independent_branches_share_a_region_and_names_come_from_the_source():
    def body(emit, x):
        a, b = emit(dialect.Table(), x, LUT), emit(dialect.Table(), x, LUT)
        return [emit(relax.op.astype(a, "float32")), b]

    ((_, region),) = chip_functions(Partition()(module(body)))
    graph = from_function(region)
    assert [graph.tensors[t].name for t in graph.inputs] == ["x"]
    assert [graph.tensors[t].name for t in graph.outputs] == ["v0", "v1"]
    assert sum(t.data is not None for t in graph.tensors) == 1  # the lookup table is inside, once


def test_dead_chip_code_leaves_no_region():
    def body(emit, x):
        emit(dialect.Table(), x, LUT)
        return [emit(relax.op.astype(x, "float32"))]

    assert chip_functions(Partition()(module(body))) == []


def test_a_module_without_chip_ops_and_a_partitioned_module_stay_as_they_are():
    plain = module(lambda emit, x: [emit(relax.op.astype(x, "float32"))])
    tvm.ir.assert_structural_equal(Partition()(plain), plain)
    once = Partition()(module(lambda emit, x: [emit(dialect.Table(), x, LUT)]))
    tvm.ir.assert_structural_equal(Partition()(once), once)


def test_run_codegen_accepts_the_regions():
    """TVM's own hook sees each region with its name and constants."""
    seen = {}

    def compile_regions(functions, _options, _constants):
        for func in functions:
            seen[str(func.attrs["global_symbol"])] = len(from_function(func).nodes)
        return []

    previous = tvm.get_global_func("relax.ext.ergo", allow_missing=True)
    tvm.register_global_func("relax.ext.ergo", compile_regions, override=True)
    try:
        mod = Partition()(module(lambda emit, x: [emit(dialect.Maximum(), emit(dialect.Table(), x, LUT), x)]))
        lowered = relax.transform.RunCodegen()(mod)
    finally:
        if previous is not None:
            tvm.register_global_func("relax.ext.ergo", previous, override=True)
    assert seen == {"ergo_main_0": 2}
    assert "call_dps_packed" in str(lowered["main"])
