"""The report's renderings, on a small hand-made report: JSON round trip, terminal text, self-contained page."""

import io
import re
from xml.etree import ElementTree

from rich.console import Console

from tvm_ergo.report.figures import host_rows, size
from tvm_ergo.report.html import html_page
from tvm_ergo.report.model import (
    BufferRow,
    HostRow,
    InputRow,
    KindRow,
    LayerError,
    LayerRow,
    MemoryRow,
    PlanReport,
    PortRow,
    PowerRow,
    ProgramReport,
    Report,
    SubproblemRow,
    TensorRow,
)
from tvm_ergo.report.pictures import live_bytes, memory_map
from tvm_ergo.report.still import memory_still
from tvm_ergo.report.terminal import print_report


def small_report() -> Report:
    layers = [
        LayerRow(
            name="<stem>",
            op="conv2d",
            engine="TENSOR",
            instructions=1,
            cycles=100,
            macs=5000,
            utilisation=0.5,
            energy_uj=0.25,
            read_bytes=640,
            write_bytes=320,
        )
    ]
    buffers = [
        BufferRow(
            name="image",
            kind="input",
            address_bytes=0,
            size_bytes=640,
            raw_bytes=640,
            first=0,
            last=1,
            start_us=0,
            end_us=1,
        ),
        BufferRow(
            name="wide_slots",
            kind="compressed",
            address_bytes=0,
            size_bytes=320,
            raw_bytes=1280,
            first=1,
            last=2,
            start_us=1,
            end_us=2,
        ),
        BufferRow(
            name="weights",
            kind="constant",
            address_bytes=640,
            size_bytes=100,
            raw_bytes=100,
            first=0,
            last=2,
            start_us=0,
            end_us=2,
        ),
    ]
    memory = [
        MemoryRow(time_us=0, constant_bytes=100, activation_bytes=960),
        MemoryRow(time_us=1, constant_bytes=100, activation_bytes=320),
    ]
    program = ProgramReport(
        symbol="main_chip",
        instructions=2,
        cycles=101,
        energy_uj=0.25,
        memory_bytes=740,
        constant_bytes=100,
        peak_activation_bytes=960,
        inputs=[InputRow(name="image", size_bytes=640, streamed=False, held_bytes=640, start_us=0, end_us=1)],
        kinds=[KindRow(kind="input", peak_bytes=640, buffers=1), KindRow(kind="scratch", peak_bytes=0, buffers=0)],
        plan=small_plan(),
        tensors=small_tensors(),
        layers=layers,
        buffers=buffers,
        memory_over_time=memory,
    )
    return Report(
        model="net",
        chip="ergo/1",
        point="nominal",
        clock_hz=1e8,
        voltage_v=0.8,
        chip_memory_bytes=4 << 20,
        cycles=101,
        latency_ms=0.00101,
        inferences_per_s=990099.0,
        energy_uj=0.26,
        leakage_uj=0.01,
        energy_by_event_uj={"MAC_8X8": 0.2, "SRAM_READ_BYTE": 0.05},
        energy_by_engine_uj={"TENSOR": 0.25},
        macs=5000,
        power=[PowerRow(frames_per_s=30, power_mw=1.5), PowerRow(frames_per_s=1e9, power_mw=None)],
        programs=[program],
        host=[HostRow(name="nms", op="topk", reason="data dependent", remedy="leave it out")],
        errors=[
            LayerError(
                name="stem", op="conv2d", sqnr_db=31.5, rmse=0.1, max_error=0.4, float_min=-1, float_max=3, scale=0.02
            )
        ],
        ports=[
            PortRow(name="image", direction="input", dtype="int8", shape=(1, 8), scale=0.5, zero_point=-128),
            PortRow(name="logits", direction="output", dtype="float32", shape=(1, 10), scale=None, zero_point=None),
        ],
    )


def small_plan() -> PlanReport:
    whole = SubproblemRow(
        layers=["a"],
        how="whole",
        decisions=[],
        peak_bytes=512,
        whole_bytes=512,
        cycles=10,
        energy_uj=0.1,
        mac_overhead=1.0,
        ways=2,
    )
    tiles = SubproblemRow(
        layers=["<stem>", "b"],
        how="tiles",
        decisions=["all in tiles of 2 of 8 rows"],
        peak_bytes=960,
        whole_bytes=2048,
        cycles=90,
        energy_uj=0.2,
        mac_overhead=1.25,
        ways=7,
    )
    return PlanReport(
        limit_bytes=1024,
        live_bytes=960,
        activation_bytes=1008,
        whole_bytes=2048,
        least_bytes=640,
        least_reason="the inputs",
        order="no order in time and space goes below 640 live bytes (the inputs)",
        in_space=True,
        mac_overhead=1.2,
        copied_bytes=64,
        subproblems=[tiles, whole, whole.model_copy(update={"layers": ["c"], "peak_bytes": 256})],
    )


def small_tensors() -> list[TensorRow]:
    return [
        TensorRow(
            name="image",
            kind="input",
            held_bytes=640,
            whole_bytes=640,
            first=0,
            last=1,
            codec=None,
            bits_mean=None,
            bits_worst=None,
            max_error=None,
        ),
        TensorRow(
            name="wide",
            kind="compressed",
            held_bytes=320,
            whole_bytes=1280,
            first=1,
            last=2,
            codec="CONTEXT",
            bits_mean=1.53,
            bits_worst=1.97,
            max_error=2,
        ),
    ]


def test_json_round_trip():
    report = small_report()
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_gaps_between_constants_and_leakage_are_accounted_for():
    """Constants in the summary are those of the peaks and what aligns them; layers' energy, without leakage, says that
    it is."""
    report = small_report()
    report.programs[0].kinds.append(KindRow(kind="constant", peak_bytes=87, buffers=2))
    out = io.StringIO()
    print_report(report, Console(file=out, width=160))
    for text in (out.getvalue(), html_page(report).replace("<b>", "").replace("</b>", "")):
        assert "87 bytes and 13 to align them" in text and "dynamic uJ" in text


def test_terminal_tells_the_figures():
    out = io.StringIO()
    print_report(small_report(), Console(file=out, width=160))
    text = out.getvalue()
    for expected in (
        "0.26 uJ",
        "1.500 mW",
        "not reachable",
        "50.0 %",
        "<stem>",
        "topk",
        "leave it out",
        "31.5",
        "peak 960 bytes: image 640 bytes",
        "not counted",
        "mW idle",
        "input frame 640 bytes",
        "740 bytes, fits in 4,096 KiB",
        "1,008 bytes, input frame included; at most 960 bytes alive at once",
        "image: int8[1, 8], real = 0.5 * (q + 128)",
        "logits: float32[1, 10]",
        "CPU and scratch none",
        "3 subproblems, of which 0 in rows, 1 in tiles, 2 whole",
        "5.0 % above",
        "all in tiles of 2 of 8 rows",
        "a .. c (2 layers)",
        "CONTEXT",
        "1.53",
        "1.97",
        "2 steps",
        "1 to 2",
    ):
        assert expected in text, expected


def test_equal_host_operators_are_one_row_in_tables_and_stay_apart_in_json():
    takes = [HostRow(name=f"gather{i}", op="take", reason="indices are data", remedy="leave it out") for i in range(9)]
    report = small_report().model_copy(update={"host": [*takes[:5], small_report().host[0], *takes[5:]]})
    assert host_rows(report) == [
        (
            "gather0, gather1, gather2, gather3, gather4, gather5, 3 more",
            "9 x take",
            "indices are data",
            "leave it out",
        ),
        ("nms", "topk", "data dependent", "leave it out"),
    ]
    out = io.StringIO()
    print_report(report, Console(file=out, width=160))
    assert (
        out.getvalue().count("indices are data") == 1
        and "9 x take" in out.getvalue()
        and "10 operators on the host" in out.getvalue()
    )
    assert "gather0, gather1" in html_page(report) and html_page(report).count("indices are data") == 1
    assert len(Report.model_validate_json(report.model_dump_json()).host) == 10


def test_narrow_terminal_keeps_names_whole():
    out = io.StringIO()
    print_report(small_report(), Console(file=out, width=80))
    assert (
        "<stem>" in out.getvalue()
        and max(map(len, out.getvalue().splitlines())) <= 80
        and "written" not in out.getvalue()
    )


def test_page_is_self_contained_and_escaped():
    page = html_page(small_report())
    assert "&lt;stem&gt;" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)  # nothing is fetched
    assert "Plotly.newPlot" in page


def test_memory_map_boxes_are_the_buffers():
    report = small_report()
    boxes = {
        (box.name, box.base[0] * 1024, box.y[0] * 1024)
        for box in memory_map(report.programs[0]).data
        if box.name != "compressed activations"
    }
    assert boxes == {("input frame", 0, 640), ("weights and other constants", 640, 100)}


def test_compressed_buffers_are_drawn_with_what_they_would_take():
    program = small_report().programs[0]
    (box,) = [box for box in memory_map(program).data if box.name == "compressed activations"]
    assert box.marker.pattern.shape == "/" and box.y[0] * 1024 == 320 and box.customdata[0][5] == 1280
    lines = {line.name: [round(y * 1024) for y in line.y] for line in live_bytes(program).data}
    assert lines == {"input frame": [640, 0], "compressed activations": [0, 320], "without compression": [640, 1280]}
    page = html_page(small_report())
    assert "Compressed while they wait" in page and "What was decided, and why" in page and "image" in page


def test_sizes_never_round_to_another_size():
    assert [size(n) for n in (0, 490, 1024, 98_304, 98_305, 98_816, 2**32)] == [
        "0 bytes",
        "490 bytes",
        "1 KiB",
        "96 KiB",
        "96.0 KiB (98,305 bytes)",
        "96.5 KiB (98,816 bytes)",
        "4,194,304 KiB",
    ]


def test_a_memory_that_is_one_byte_too_small_is_seen():
    report = small_report().model_copy(update={"chip_memory_bytes": 739})
    out = io.StringIO()
    print_report(report, Console(file=out, width=160))
    assert "740 bytes, DOES NOT FIT in 739 bytes" in out.getvalue() and "DOES NOT FIT in 739 bytes" in html_page(report)


def test_the_still_picture_shows_every_buffer():
    """As well-formed SVG, a box with a title each, inside the frame."""
    (program,) = small_report().programs
    picture = ElementTree.fromstring(memory_still(program))
    space = "{http://www.w3.org/2000/svg}"
    boxes = [box for box in picture.iter(f"{space}rect") if box.find(f"{space}title") is not None]
    names = [box.find(f"{space}title").text.split(",")[0] for box in boxes]
    assert names == [b.name for b in program.buffers] and len(boxes) > 1
    for box in boxes:
        assert float(box.get("y")) + float(box.get("height")) <= float(picture.get("height"))
        assert float(box.get("x")) + float(box.get("width")) <= float(picture.get("width")) + 1
