"""What reports say of coded weights, beyond the table that tests/doors/test_weights.py looks at."""

import tvm_ergo
from tvm_ergo import zoo
from tvm_ergo.report.build import build_report
from tvm_ergo.report.weights import weights_text


def test_decoding_is_named_where_engines_wait_for_it():
    """Against the same program with its weights plain, layer for layer."""
    images = zoo.digits()[0][:16]
    reports = {}
    for weights in ("dense", "coded"):
        compiled = tvm_ergo.compile(str(zoo.DIGITS_MODEL), calibration={"image": images}, weights=weights)
        report = build_report("net", compiled.programs, compiled.chip)
        (reports[weights],) = report.programs
    assert reports["dense"].decoding_cycles == 0 and "wait" not in weights_text(reports["dense"])
    busy = {name: sum(row.cycles for row in report.layers) for name, report in reports.items()}
    assert reports["coded"].decoding_cycles == busy["coded"] - busy["dense"] > reports["coded"].cycles / 3
    assert f"wait {reports['coded'].decoding_cycles:,} cycles" in weights_text(reports["coded"])
