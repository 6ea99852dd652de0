"""Chips: the shipped files, their sources and arithmetic, user files and what is wrong with them."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_ergo.target.chip import Chip, chip, chip_names, load_chip
from tvm_ergo.target.errors import TargetError
from tvm_ergo.target.isa import Event

NAMES = chip_names()
shipped = pytest.mark.parametrize("name", NAMES)

# Horowitz, ISSCC 2014, 45 nm, 0.9 V, pJ (the project's anchors); the derivations are those stated in the chip files
ADD8, ADD32, MUL8, MUL32, SRAM_8K, SRAM_32K = 0.03, 0.1, 0.2, 3.1, 10.0, 20.0
AT_45_NM_PJ = {
    Event.MAC_8X8: MUL8,
    Event.MUL_8X8: MUL8,
    Event.XNOR_POPCOUNT: 2 * ADD8 / 8,
    Event.ACC_ADD_32: ADD32,
    Event.ALU_8: ADD8,
    Event.DIVIDE: 32 * ADD32,
    Event.REQUANT: MUL32 * (32 * 24) / (32 * 32) + 2 * ADD32,
    Event.RESCALE_9X22: MUL32 * (9 * 22) / (32 * 32),
    Event.LUT_READ: SRAM_8K / 8 * math.sqrt(256 / 8192),
    Event.LOCAL_READ_BYTE: SRAM_8K / 8,
    Event.LOCAL_WRITE_BYTE: SRAM_8K / 8,
    Event.SRAM_READ_BYTE: SRAM_32K / 8 * (1 + 2 / 6),
    Event.SRAM_WRITE_BYTE: SRAM_32K / 8 * (1 + 2 / 6),
    Event.INSTRUCTION: 24 * SRAM_32K * (1 + 2 / 6),
    Event.CPU_CYCLE: 70.0,
}


def numbers(value, path=""):
    """(path, object around it) of every numeric leaf of a chip file."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, (int, float)):
            yield f"{path}.{key}", value
        elif isinstance(item, (dict, list)):
            yield from numbers(item, f"{path}.{key}")


def test_names():
    assert NAMES == ["ergo/1", "ergo/2"] and chip("ergo") == chip("ergo/1") != chip("ergo/2")
    with pytest.raises(TargetError, match="ergo/2"):
        chip("ergo/3")


@shipped
def test_every_number_has_its_source(name):
    leaves = list(numbers(chip(name).to_json()))
    assert len(leaves) > 40
    for path, around in leaves:
        text = around["source"]
        assert len(text) > 12, path
        assert re.search(r"assumption|Horowitz|sram_read_byte|32 KB bank", text), (
            f"{path}: neither a source nor marked as an assumption: {text}"
        )
        if "pj" in around:
            assert "22/45" in around["scaling"], path


@shipped
def test_energies_are_the_published_events_scaled_as_stated(name):
    ergo = chip(name)
    assert set(ergo.energy) == set(Event) == set(AT_45_NM_PJ)
    for event, at_45_nm_pj in AT_45_NM_PJ.items():
        assert ergo.energy[event].pj == pytest.approx(at_45_nm_pj * ergo.process_nm / 45, rel=1e-4), event
    assert ergo.reference_v == 0.9


def test_published_throughput():
    """4 TOPS-equivalent and four times that, at the nominal clock."""
    tops = [2 * chip(n).tensor.macs_per_cycle * chip(n).point("nominal").clock_hz / 1e12 for n in NAMES]
    assert tops[0] == pytest.approx(4, rel=0.05) and tops[1] / tops[0] == pytest.approx(4)


@shipped
def test_file_round_trip(name, tmp_path):
    ergo = chip(name)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(ergo.to_json()))
    assert load_chip(path) == ergo and hash(load_chip(path)) == hash(ergo)
    assert Chip.from_json(ergo.to_json()).to_json() == ergo.to_json()


@given(st.dictionaries(st.sampled_from(Event), st.integers(0, 10**9)), st.sampled_from(["nominal", "low", "eco", None]))
def test_dynamic_energy(events, name):
    ergo = chip("ergo/1")
    volts = {"nominal": 0.8, "low": 0.65, "eco": 0.5, None: 0.8}[name]
    slow = 0.0
    for event, count in events.items():
        slow += count * ergo.energy[event].pj * volts * volts / (0.9 * 0.9)
    assert ergo.energy_pj(events, name) == pytest.approx(slow)


def test_leakage_is_power_times_time():
    ergo = chip("ergo/1")
    second = ergo.point("eco").clock_hz
    assert ergo.leakage_pj(second, "eco") == pytest.approx(ergo.leakage_mw * 1e-3 * 1e12 * 0.5 / 0.9)
    assert ergo.leakage_pj(0) == 0


def test_with_memory():
    small = chip("ergo/1").with_memory(65536)
    assert small.memory_bytes == 65536 and small.tensor == chip("ergo/1").tensor and small != chip("ergo/1")
    assert small.to_json()["memory_bytes"] == {"value": 65536, "source": "set by the user"}
    for bad in (0, -1, 2**32 + 1, 1.5, "64K"):
        with pytest.raises(TargetError, match="unified memory"):
            chip("ergo/1").with_memory(bad)


def test_unknown_point():
    with pytest.raises(TargetError, match="nominal, low, eco"):
        chip("ergo/1").point("turbo")


def broken(change):
    data = chip("ergo/1").to_json()
    change(data)
    return data


@pytest.mark.parametrize(
    "key, change",
    [
        ("memory_bytes", lambda d: d.pop("memory_bytes")),
        ("colour", lambda d: d.update(colour="red")),
        ("process_nm", lambda d: d.update(process_nm="22")),
        ("memory_bytes", lambda d: d.update(memory_bytes=-4)),
        ("memory_bytes", lambda d: d.update(memory_bytes=1.5)),
        ("memory_bytes", lambda d: d.update(memory_bytes=2**33)),
        ("leakage_mw", lambda d: d.update(leakage_mw=10**400)),
        ("idle_mw", lambda d: d.update(idle_mw=float("nan"))),
        ("tensor.pixel_lanes", lambda d: d["tensor"].update(pixel_lanes=0)),
        ("tensor.pixel_lanes", lambda d: d["tensor"].pop("pixel_lanes")),
        ("vector", lambda d: d.update(vector=7)),
        ("points", lambda d: d.update(points=[])),
        ("points", lambda d: d["points"].append(d["points"][0])),
        ("points[0].clock_hz", lambda d: d["points"][0].update(clock_hz=float("inf"))),
        ("points[1].name", lambda d: d["points"][1].update(name=3)),
        ("energy.mac_8x8", lambda d: d["energy"].pop("mac_8x8")),
        ("energy.mac_8x8.pj", lambda d: d["energy"]["mac_8x8"].update(pj=True)),
        ("energy.alu_8.source", lambda d: d["energy"]["alu_8"].update(source=" ")),
        ("name", lambda d: d.update(name="")),
        ("leakage_mw", lambda d: d.update(leakage_mw=0.1)),
        ("gating.bank_mw", lambda d: d["gating"].pop("bank_mw")),
        ("gating.retention", lambda d: d["gating"].update(retention=1.5)),
        ("gating", lambda d: d.update(gating=[])),
        ("tensor.zero_gating", lambda d: d["tensor"].update(zero_gating=2)),
        ("leakage_mw.source", lambda d: d["leakage_mw"].pop("source")),
        ("energy.magic", lambda d: d["energy"].update(magic=1)),
    ],
)
def test_wrong_chip_files_name_the_key(key, change, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(broken(change)))
    with pytest.raises(TargetError) as caught:
        load_chip(path)
    assert repr(key) in str(caught.value) and "required" in str(caught.value) and str(path) in str(caught.value)


def test_bare_numbers_are_accepted_in_a_users_file():
    mine = Chip.from_json(broken(lambda d: d.update(memory_bytes=4096, leakage_mw=0, gating=None)))
    assert mine.memory_bytes == 4096 and "without a source" in mine.sources["memory_bytes"]


def test_a_file_older_than_gating_is_read_and_gates_nothing():
    old = Chip.from_json(broken(lambda d: d.pop("gating")))
    assert old.gating is None and old.leakage_mw == chip("ergo/1").leakage_mw
    assert Chip.from_json(old.to_json()) == old


@shipped
def test_the_parts_leakage_is_all_of_it(name):
    ergo = chip(name)
    banks = ergo.memory_bytes // ergo.bank_bytes
    assert ergo.gating.logic_mw + banks * ergo.gating.bank_mw == pytest.approx(ergo.leakage_mw, rel=1e-4)
    assert (
        ergo.gating.part_mw("tensor") == ergo.gating.tensor_mw
        and ergo.gating.wake_pj("bank") == ergo.gating.bank_wake_pj
    )


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2]", b"3"])
def test_files_that_are_no_chip(content, tmp_path):
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    for wrong in (path, tmp_path / "absent.json", tmp_path):
        with pytest.raises(TargetError):
            load_chip(wrong)


def test_memory_sizes_as_people_write_them():
    made = chip("ergo/1")
    assert made.with_memory("64KiB").memory_bytes == made.with_memory(np.int64(65536)).memory_bytes == 65536
    assert made.with_memory("1.5MB").memory_bytes == 1_500_000
    for wrong in ("", "lots", "64KiBB", "-1", "9" * 400, "0", "8GiB", True, 65536.0, None):
        with pytest.raises(TargetError):
            made.with_memory(wrong)


def test_a_chip_file_older_than_multiplications_outside_the_array_prices_them_as_those_inside():
    data = chip("ergo").to_json()
    del data["energy"]["mul_8x8"]
    assert Chip.from_json(data).energy[Event.MUL_8X8] == chip("ergo").energy[Event.MAC_8X8]
