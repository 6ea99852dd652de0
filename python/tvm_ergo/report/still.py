"""The memory map as a picture that needs no script: for notebooks and pages that show SVG alone."""

from __future__ import annotations

from xml.sax.saxutils import escape

from tvm_ergo.report.figures import KIB, KIND_NAMES
from tvm_ergo.report.model import ProgramReport
from tvm_ergo.report.pictures import COLOURS, address_range

WIDTH, HEIGHT = 820, 420
LEFT, TOP, RIGHT, BOTTOM = 70, 34, 10, 44


def memory_still(program: ProgramReport) -> str:
    """SVG of what `pictures.memory_map` shows: each buffer a box, its addresses (KiB) upwards, its life (us) to the
    right; names are titles."""
    low, high = address_range(program)
    end = max((b.end_us for b in program.buffers), default=1.0) or 1.0
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(us: float) -> float:
        return LEFT + wide * us / end

    def y(kib: float) -> float:
        return TOP + tall * (1 - (min(max(kib, low), high) - low) / (high - low))

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">']
    parts.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>')
    for b in program.buffers:
        first, last = b.address_bytes / KIB, (b.address_bytes + b.size_bytes) / KIB
        parts.append(
            f'<rect x="{x(b.start_us):.1f}" y="{y(last):.1f}" width="{max(x(b.end_us) - x(b.start_us), 0.5):.1f}" '
            f'height="{max(y(first) - y(last), 0.3):.1f}" fill="{COLOURS[b.kind]}" stroke="white" stroke-width="0.3">'
            f"<title>{escape(b.name)}, {b.size_bytes} bytes at {b.address_bytes}</title></rect>"
        )
    parts += _axes(low, high, end, x, y)
    for place, kind in enumerate(k for k in COLOURS if any(b.kind == k for b in program.buffers)):
        at = LEFT + 130 * place
        parts.append(f'<rect x="{at}" y="10" width="12" height="12" fill="{COLOURS[kind]}"/>')
        parts.append(f'<text x="{at + 17}" y="20" font-size="12">{escape(KIND_NAMES[kind])}</text>')
    return "\n".join([*parts, "</svg>"])


def _axes(low: float, high: float, end: float, x, y) -> list[str]:
    parts = []
    for part in range(6):
        kib, us = low + (high - low) * part / 5, end * part / 5
        parts.append(
            f'<text x="{LEFT - 6}" y="{y(kib) + 4:.1f}" font-size="11" text-anchor="end">{kib:,.0f}</text>'
            f'<text x="{x(us):.1f}" y="{HEIGHT - 26}" font-size="11" text-anchor="middle">{us:.4g}</text>'
        )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" font-size="12" text-anchor="middle">time, us</text>')
    turned = f"rotate(-90 14 {middle})"
    parts.append(
        f'<text x="14" y="{middle}" font-size="12" text-anchor="middle" transform="{turned}">address, KiB</text>'
    )
    return parts
