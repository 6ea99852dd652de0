"""Firmware of the MLPerf Tiny networks and of mcunet-vww1 for a Cortex-M7, run in QEMU: RAM and flash, all counted.

Each network is compiled for least memory, its input streamed where it is a picture, exported as C, built with -Os, and
run once on an emulated board. RAM: the arena of the activations, the workspace of coders, the runtime's own static
bytes, and the stack's high-water mark (painted before the run). Flash: code of runtime and example without the C
library's, and the network's bytes (constants and instructions). Instructions executed by the run: QEMU counts each as a
nanosecond (-icount shift=0) and the board's timer tells; they are no cycles, a Cortex-M7 may take more or less than one
each. The rows of the input come from a function, as from a
camera. Needs gcc-arm-none-eabi, libnewlib-arm-none-eabi, qemu-system-arm, make."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import tvm_ergo
from benchmarks.common import parse, parser, show
from tvm_ergo.evaluation.nets import compile_net
from tvm_ergo.target.errors import UnsupportedError

NETS = ("vww96_qdq_int8", "ic_resnet8_qdq_int8", "kws_dscnn_qdq_int8", "ad01_autoencoder_qdq_int8", "vww")
ARM = ["arm-none-eabi-gcc", "-mcpu=cortex-m7", "-mthumb", "-std=c11", "-Os", "-ffunction-sections", "-fdata-sections"]
LINK = ["--specs=rdimon.specs", "-nostartfiles", "-T", "boards/cortex_m.ld", "-Wl,--gc-sections"]
TICKS = 40
"""Instructions between two ticks of the board's timer (25 MHz) where QEMU counts one instruction as a nanosecond."""
TFLM_ARENA = {
    "vww96_qdq_int8": 73_728,
    "ic_resnet8_qdq_int8": 49_152,
    "kws_dscnn_qdq_int8": 15_974,
    "ad01_autoencoder_qdq_int8": 768,
}
"""Bytes of activations that TFLite Micro's planner takes (the head of its arena) for the networks' TFLite files, run;
its interpreter's own structures come on top."""
TINYENGINE = {"vww": 32_000}
"""Bytes of activations of TinyEngine, for its own network."""
HELIA_KB = {
    "vww96_qdq_int8": 54.0,
    "ic_resnet8_qdq_int8": 48.6,
    "kws_dscnn_qdq_int8": 18.9,
    "ad01_autoencoder_qdq_int8": 0.75,
    "vww": 157.7,
}
"""Activations of heliaAOT 1.1.0, KB as it prints them. It is not run here: its license allows use on one maker's
processors only."""
PAINTED = """
#define TIMER ((volatile uint32_t *)0x40000000) /* CMSDK: control, value, reload */
static void count(void) { TIMER[0] = 0, TIMER[2] = TIMER[1] = 0xFFFFFFFFu, TIMER[0] = 1; }
static unsigned counted(void) { return 0xFFFFFFFFu - TIMER[1]; }
extern uint8_t end[];
static uint8_t *top;
static __attribute__((noinline)) void paint(void) {
  uint8_t here;
  top = &here;
  for (volatile uint8_t *p = end + 65536; p < &here - 256; p++) *p = 0xC5;
}
static __attribute__((noinline)) unsigned painted_over(void) {
  const uint8_t *p = end + 65536;
  while (*p == 0xC5) p++;
  return (unsigned)(top - p);
}
"""
"""The heap of the C library is left alone: 64 KiB behind the static bytes."""


def firmware(folder: Path, name: str, main: str) -> Path:
    """The linked file of a folder's sources with another main."""
    (folder / "main.c").write_text(main)
    elf = folder / f"{name}.elf"
    sources = [str(path.relative_to(folder)) for path in sorted(folder.glob("*.c"))] + ["boards/cortex_m_start.c"]
    subprocess.run([*ARM, *LINK, "-o", elf.name, *sources], cwd=folder, check=True)
    return elf


def sizes(elf: Path) -> tuple[int, int]:
    """Bytes in flash and of static RAM."""
    text, data, bss = (
        subprocess.run(["arm-none-eabi-size", str(elf)], capture_output=True, text=True, check=True)
        .stdout.splitlines()[1]
        .split()[:3]
    )
    return int(text) + int(data), int(data) + int(bss)


def compiled_small(name: str, weights: str):
    """Least memory, the input streamed where it is a picture."""
    try:
        return compile_net(name, calibration_samples=4, stream=True, objective="memory", weights=weights)
    except UnsupportedError:
        return compile_net(name, calibration_samples=4, objective="memory", weights=weights)


def measure(name: str, weights: str) -> dict:
    compiled = compiled_small(name, weights)
    (program,) = compiled.programs.values()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "out"
        found = tvm_ergo.export_c(compiled, folder, name="net")
        example = (folder / "main.c").read_text()
        run = example[example.index("  if ((status = ergo_run(") :].split("\n", 1)[0]
        head, body = example.split("int main(void) {")
        measured = (
            head
            + PAINTED
            + "int main(void) {"
            + body.replace(
                run,
                f"  paint();\n  count();\n{run}\n  unsigned ticks = counted();\n"
                '  printf("stack: %u\\nticks: %u\\n", painted_over(), ticks);',
            )
        )
        elf = firmware(folder, "measured", measured)
        told = subprocess.run(
            [
                "qemu-system-arm",
                "-machine",
                "mps2-an500",
                "-nographic",
                "-monitor",
                "none",
                "-serial",
                "none",
                "-semihosting",
                "-icount",
                "shift=0",
                "-kernel",
                str(elf),
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        ).stdout
        stack, ticks = (
            next(int(line.split()[1]) for line in told.splitlines() if line.startswith(word))
            for word in ("stack: ", "ticks: ")
        )
        flash, static = sizes(firmware(folder, "quiet", example.replace("printf(", "(void)sizeof(")))
        data = int((folder / "net.c").read_text().rpartition("_program_bytes = ")[2].split(";")[0])
        empty_flash, empty_static = sizes(firmware(folder, "empty", "int main(void) { return 0; }\n"))
    needs = found.needs
    own = static - empty_static - needs.arena - needs.workspace
    return {
        "net": name,
        "weights": weights,
        "arena": needs.arena,
        "workspace": needs.workspace,
        "static": own,
        "stack": stack,
        "RAM": needs.arena + needs.workspace + own + stack,
        "code": flash - empty_flash - data,
        "network": data,
        "M instructions": TICKS * ticks / 1e6,
        "TFLM arena": TFLM_ARENA.get(name),
        "TinyEngine": TINYENGINE.get(name),
        "heliaAOT KB": HELIA_KB.get(name),
        "streamed": any(port.streamed for port in program.inputs),
    }


def main(argv=None) -> None:
    options = parser(__doc__.split("\n\n")[0])
    options.add_argument(
        "--weights",
        nargs="*",
        default=["auto"],
        choices=["auto", "dense", "coded"],
        help="forms of the weights, one row each (default auto)",
    )
    arguments = parse(options, argv)
    show(
        "firmware of a Cortex-M7, bytes",
        [measure(name, weights) for name in arguments.nets or NETS for weights in arguments.weights],
        arguments.json,
    )


if __name__ == "__main__":
    main()
