"""Networks as C: built without a warning, and run on this machine and on emulated boards with the emulator's
outputs."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo import evaluation, zoo
from tvm_ergo.cli import main
from tvm_ergo.evaluation.nets import compile_net
from tvm_ergo.exporting_c import port_scales
from tvm_ergo.target.chip import chip
from tvm_ergo.target.errors import ErgoError, ModelError, OutputError
from tvm_ergo.target.isa import Codec, Conv, Decode, DType, Encode, Halt, Norm, contiguous
from tvm_ergo.target.isa.coded import coded
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.native.export import exported
from tvm_ergo.target.native.library import library
from tvm_ergo.target.native.sources import OPS
from tvm_ergo.target.program import Port, Program

from ..target.native.sanitized import samples

BOARDS = {
    "here": ("cc", "", ["make", "-s"], "gcc make"),
    "clang": ("clang", "", ["make", "-s", "CC=clang"], "clang make"),
    "cortex-m": (
        "arm-none-eabi-gcc",
        "qemu-system-arm",
        ["make", "-s", "run-cortex-m"],
        "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm",
    ),
    "riscv": (
        "riscv64-unknown-elf-gcc",
        "qemu-system-riscv32",
        ["make", "-s", "run-riscv"],
        "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc",
    ),
}
TINY = ("ic_resnet8_qdq_int8", "kws_dscnn_qdq_int8", "vww96_qdq_int8", "ad01_autoencoder_qdq_int8")
pytestmark = [
    pytest.mark.skipif(library() is None, reason="the native runtime was not built: pip install -e ."),
    pytest.mark.skipif(shutil.which("make") is None, reason="apt-get install make"),
]


def need(board: str) -> list[str]:
    compiler, machine, command, packages = BOARDS[board]
    if any(tool and shutil.which(tool) is None for tool in (compiler, machine)):
        pytest.skip(f"apt-get install {packages}")
    return command


def run_on(board: str, folder, name: str) -> list[list[int]]:
    """The example's outputs, as it prints them. Fails on any warning of the compiler."""
    built = subprocess.run(
        [*need(board), "CFLAGS=-O2 -Werror -Wconversion"], cwd=folder, capture_output=True, text=True, timeout=540
    )
    assert built.returncode == 0, built.stdout + built.stderr
    text = (
        built.stdout
        if board in ("cortex-m", "riscv")
        else subprocess.run([f"./{name}"], cwd=folder, capture_output=True, text=True, timeout=300, check=True).stdout
    )
    return [[int(word) for word in line.rpartition(":")[2].split()] for line in text.strip().splitlines()]


def expected(program: Program) -> list[list[int]]:
    outputs = (
        Machine(program, chip(program.chip_name).with_memory(program.memory_bytes), native=False)
        .run(samples(program))
        .outputs
    )
    return [outputs[port.name].ravel().tolist() for port in program.outputs]


def write(program: Program, folder, name: str = "net") -> None:
    for path, text in exported(program, name, {}).files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


@pytest.fixture(scope="module")
def digits():
    train, *_ = zoo.digits()
    return tvm_ergo.compile(zoo.DIGITS_MODEL, calibration=train[:32])


@pytest.mark.parametrize("board", BOARDS)
def test_the_demo_network(digits, tmp_path, board):
    tvm_ergo.export_c(digits, tmp_path / "out")
    (program,) = digits.programs.values()
    assert run_on(board, tmp_path / "out", "digits_cnn") == expected(program)


@pytest.mark.skipif(not evaluation.has_shared(), reason="needs the shared models (ERGO_SHARED)")
@pytest.mark.parametrize("board", ["cortex-m", "riscv"])
@pytest.mark.parametrize(
    "name, options",
    [*((name, {}) for name in TINY), ("vww96_qdq_int8", dict(stream=True, objective="memory"))],
    ids=[*TINY, "vww streamed"],
)
def test_mlperf_tiny(name, options, board, tmp_path):
    need(board)
    compiled = compile_net(name, calibration_samples=2, **options)
    (program,) = compiled.programs.values()
    assert bool(options) == any(port.streamed for port in program.inputs)
    write(program, tmp_path)
    assert run_on(board, tmp_path, "net") == expected(program)


def coded_activations(codec: Codec) -> Program:
    """A picture into slots and out of them, a convolution from slots into slots."""

    x, slots, wide = (
        contiguous(1024, DType.I8, (6, 5, 4)),
        contiguous(2048, DType.U8, (6, 24)),
        coded(2048, (1, 6, 5, 4), codec, 24),
    )
    result, out = coded(4096, (1, 6, 5, 8), codec, 30), contiguous(8192, DType.I8, (6, 5, 8))
    rng = np.random.default_rng(3)
    w = rng.integers(-128, 128, 8 * 9 * 4).astype(np.int8)
    vectors = np.concatenate([rng.integers(-900, 900, 8), np.full(8, 12_000_000), np.full(2, 0x20202020)]).astype("<i4")
    conv = Conv(
        x=wide,
        w=contiguous(0, DType.I8, (8, 3, 3, 4)),
        bias=contiguous(512, DType.I32, (8,)),
        mult=contiguous(544, DType.I32, (8,)),
        shift=contiguous(576, DType.I8, (8,)),
        out=result,
        strides=(1, 1),
        padding=(1, 1, 1, 1),
        dilation=(1, 1),
        groups=1,
        in_zp=-3,
        w_zp=0,
        out_zp=5,
        lo=-128,
        hi=127,
    )
    back = Decode(
        x=contiguous(4096, DType.U8, (6, 30)), out=out, codec=codec, tile_rows=1, last_rows=1, skip=0, zero_point=5
    )
    return Program(
        chip_name="ergo/1",
        instructions=[Encode(x=x, out=slots, codec=codec, tile_rows=1, zero_point=-3), conv, back, Halt()],
        data=[(0, w.tobytes()), (512, vectors.tobytes())],
        inputs=[Port("x", x)],
        outputs=[Port("y", out)],
        memory_bytes=8192 + 240,
    )


@pytest.mark.parametrize("board", ["here", "cortex-m", "riscv"])
@pytest.mark.parametrize("codec", [Codec.BITMASK, Codec.BITPLANE, Codec.CONTEXT, Codec.STATIC])
def test_coded_activations(codec, board, tmp_path):
    program = coded_activations(codec)
    write(program, tmp_path)
    assert run_on(board, tmp_path, "net") == expected(program)


@pytest.mark.skipif(not evaluation.has_shared(), reason="needs the shared models (ERGO_SHARED)")
@pytest.mark.parametrize("board", ["here", "cortex-m"])
def test_coded_weights(board, tmp_path):
    need(board)
    (program,) = compile_net(
        "ic_resnet8_qdq_int8", calibration_samples=2, weights="coded", objective="memory"
    ).programs.values()
    assert any(o.codec.of_weights for i in program.instructions for o in i.reads())
    write(program, tmp_path)
    assert run_on(board, tmp_path, "net") == expected(program)


def test_the_command(digits, tmp_path, capsys):
    digits.save(tmp_path / "net.ergo")
    assert (
        main(
            [
                "export-c",
                str(tmp_path / "net.ergo"),
                "-o",
                str(tmp_path / "out"),
                "--name",
                "My net-7",
                "--json",
                str(tmp_path / "out.json"),
            ]
        )
        == 0
    )
    told = json.loads((tmp_path / "out.json").read_text())
    header = (tmp_path / "out" / "my_net_7.h").read_text()
    ((symbol, program),) = digits.programs.items()
    scale, zero_point = port_scales(digits, symbol, program)[program.inputs[0].name]
    # of pixels 0 to 1 in int8, a little more where calibration saw more
    assert 1 / 256 < scale < 1 / 64 and zero_point == -128
    assert told["name"] == "my_net_7"
    assert f"#define MY_NET_7_ARENA_BYTES {told['arena_bytes']}u" in header
    assert f"_INPUT_0_SCALE {scale!r}f" in header and "_INPUT_0_ZERO_POINT (-128)" in header
    assert {"main.c", "Makefile", "CMakeLists.txt", "op_conv.c", "boards/cortex_m.ld"} <= set(
        told["files"]
    ) and "op_softmax.c" not in told["files"]
    assert main(["export-c", str(tmp_path / "net.ergo"), "-o", str(tmp_path / "out")]) == 2
    assert "not empty" in capsys.readouterr().err


def test_cmake_builds(digits, tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("apt-get install cmake")
    tvm_ergo.export_c(digits, tmp_path / "out")
    for command in (["cmake", "-S", "out", "-B", "build"], ["cmake", "--build", "build"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    (program,) = digits.programs.values()
    text = subprocess.run(["build/digits_cnn"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert [int(word) for word in text.rpartition(":")[2].split()] == expected(program)[0]


def test_an_instruction_that_c_does_not_have_is_refused_by_name(tmp_path, monkeypatch):
    x, out = contiguous(64, DType.I16, (3, 5)), contiguous(256, DType.I16, (3, 5))
    norm = Norm(
        x=x,
        gamma=contiguous(0, DType.I16, (5,)),
        beta=contiguous(32, DType.I32, (5,)),
        out=out,
        centre=True,
        in_zp=0,
        eps=7,
        eps_shift=3,
        beta_shift=2,
        shift=16,
        out_zp=0,
        lo=-128,
        hi=127,
    )
    program = Program(
        chip_name="ergo/1",
        instructions=[norm, Halt()],
        data=[(0, bytes(range(64)))],
        inputs=[Port("x", x)],
        outputs=[Port("y", out)],
        memory_bytes=512,
    )
    write(program, tmp_path)
    assert run_on("here", tmp_path, "net") == expected(program)
    monkeypatch.delitem(OPS, "NORM")
    with pytest.raises(ModelError, match="does not have the instruction NORM"):
        exported(program, "net", {})


def test_bad_folders(digits, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path, tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError):
            tvm_ergo.export_c(digits, folder)
    with pytest.raises(ErgoError):
        tvm_ergo.export_c(digits, tmp_path / ("x" * 300))


def test_errors_in_c(digits, tmp_path):
    """Too small an arena, no callback, another version, a truncated array: an error by name, nothing written outside
    the arena."""
    folder = tmp_path / "out"
    tvm_ergo.export_c(digits, folder, name="net")
    (folder / "main.c").write_text(r"""
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include "net.h"
static uint8_t arena[NET_ARENA_BYTES + 16], program[1 << 16];
int main(void) {
  ergo_net net;
  int8_t x[NET_INPUT_0_BYTES] = {0};
  assert(ergo_load(NULL, net_program, net_program_bytes) == ERGO_NULL && ergo_load(&net, NULL, 9) == ERGO_NULL);
  assert(ergo_load(&net, net_program, net_program_bytes - 1) == ERGO_TRUNCATED);
  memcpy(program, net_program, net_program_bytes);
  program[4]++;
  assert(ergo_load(&net, program, net_program_bytes) == ERGO_WRONG_VERSION);
  program[4]--, program[net_program_bytes - 1] ^= 1;
  assert(ergo_load(&net, program, net_program_bytes) == ERGO_CHECKSUM);
  assert(!ergo_load(&net, net_program, net_program_bytes) && ergo_arena_bytes(&net) == NET_ARENA_BYTES);
  memset(arena, 0x5A, sizeof arena);
  assert(ergo_start(&net, arena, NET_ARENA_BYTES - 1) == ERGO_ARENA_TOO_SMALL && arena[0] == 0x5A);
  assert(!ergo_start(&net, arena, NET_ARENA_BYTES));
  assert(ergo_set_input(&net, arena, 1, x, sizeof x) == ERGO_NO_SUCH_PORT && ergo_set_input(&net, arena, 0, x, sizeof x - 1) == ERGO_NO_SUCH_PORT);
  assert(!ergo_set_input(&net, arena, 0, x, sizeof x));
  assert(ergo_run(&net, arena, NET_ARENA_BYTES - 1, NULL, 0, NULL, NULL) == ERGO_ARENA_TOO_SMALL && ergo_run(&net, NULL, 0, NULL, 0, NULL, NULL) == ERGO_NULL);
  assert(!ergo_run(&net, arena, NET_ARENA_BYTES, NULL, 0, NULL, NULL));
  for (unsigned i = 0; i < 16; i++) assert(arena[NET_ARENA_BYTES + i] == 0x5A);
  assert(!strcmp(ergo_status_name(ERGO_CHECKSUM), "ERGO_CHECKSUM") && !strcmp(ergo_status_name((ergo_status)99), "unknown"));
  puts("net: 1");
  return 0;
}
""")
    assert run_on("here", folder, "net") == [[1]]
