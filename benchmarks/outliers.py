"""Outlier channel splitting against clipping, weights of 8 to 4 bits rounded to nearest on one grid a layer, nothing
retrained.

As in Zhao et al. (ICML 2019): expansion r = 0, .01, .02, .05 against clipping by none, MSE, ACIQ and KL; besides,
splitting and MSE clipping together. Batch norm is folded first (there it is not), and the first layer is rounded like
all others (there it is left alone). Activations are float unless --int8 (then 8 bits, quantized as ``tvm_ergo.compile``
does). Depthwise layers are not split. Layers whose weights are exact in few levels already (the 0 and 1 of ResNet-20's
shortcuts) are left as they are."""

from __future__ import annotations

from benchmarks.common import parse, parser, show
from benchmarks.one_shot import Net
from tvm_ergo.relay_passes.micro.clip import Clip, ClipMethod
from tvm_ergo.relay_passes.micro.reduce_bits import ReduceBits
from tvm_ergo.relay_passes.micro.split_outliers import SplitOutliers
from tvm_ergo.relay_passes.micro.structured_scales import row_steps, shared_values
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers
from tvm_ergo.relay_passes.micro.weights import WeightScale

NETS = ("resnet20_cifar10",)
EXPANSIONS = (0.01, 0.02, 0.05)
BITS = (8, 7, 6, 5, 4)


def forms(mod, bits: int) -> dict:
    """Name -> the float net with weights of so many bits."""
    some = {
        name: bits
        for name, layer in weight_layers(mod).items()
        if shared_values(layer.rows) is None and row_steps(layer.rows) is None
    }
    grid = ReduceBits(some, WeightScale.MAX, per_channel=False)
    made = {f"clip {method.value}": grid(Clip(method, some)(mod)) for method in ClipMethod}
    made["r = 0"] = made.pop("clip none")  # the same thing
    for r in EXPANSIONS:
        made[f"r = {r}"] = grid(SplitOutliers({name: r for name in some}, bits)(mod))
    made["r = 0.02, clip mse"] = grid(
        Clip(ClipMethod.MSE, some)(SplitOutliers({name: 0.02 for name in some}, bits)(mod))
    )
    return made


def rows_of(net: Net, all_bits, int8: bool) -> list[dict]:
    rows: dict[str, dict] = {
        "float": {"net": net.name, "weights": "float", "more weights %": 0.0, "float": net.top1(net.mod)}
    }
    for bits in all_bits:
        for label, mod in forms(net.mod, bits).items():
            more = sum(w.size for w in weight_layers(mod).values()) / net.weights - 1
            row = rows.setdefault(
                label, {"net": net.name, "weights": label, "more weights %": 100 * more, "float": None}
            )
            row[f"{bits} bits"] = net.top1(net.quantized(mod) if int8 else mod)
    for row in rows.values():
        row["images"] = net.seen
    return list(rows.values())


def main(argv=None) -> None:
    options = parser(__doc__.split("\n\n")[0])
    options.add_argument("--images", type=int, help="test images (default: all)")
    options.add_argument("--bits", type=int, nargs="*", default=BITS)
    options.add_argument("--int8", action="store_true", help="activations of 8 bits")
    arguments = parse(options, argv)
    for name in arguments.nets or NETS:
        rows = rows_of(Net(name, 64, arguments.images), arguments.bits, arguments.int8)
        keys = ["weights", "more weights %", "float", *(f"{b} bits" for b in arguments.bits), "images"]
        show(
            f"{name}: top-1",
            [{"net": name, **{k: row.get(k) for k in keys}} for row in rows],
            arguments.json,
            hidden=("net",),
        )


if __name__ == "__main__":
    main()
