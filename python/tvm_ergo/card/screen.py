"""The card and the comparison on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tvm_ergo.card.difference import Difference, row_texts
from tvm_ergo.card.model import Card
from tvm_ergo.card.texts import HOST_LISTED, answers, host_texts, peer_texts, summary
from tvm_ergo.printed import plain, printable

LAYERS_LISTED = 10
"""Layers that a comparison names, those that changed most."""


def print_card(card: Card, console: Console) -> None:
    console.print(
        Text.assemble((printable(card.model), "bold"), f" on {printable(card.chip)}, an assumed chip, emulated")
    )
    table = _grid()
    for question, answer in answers(card):
        table.add_row(question, plain(answer))
    hosts = host_texts(card)
    for i, line in enumerate(hosts[:HOST_LISTED]):
        table.add_row("what falls off" if i == 0 else "", plain(line))
    if len(hosts) > HOST_LISTED:
        table.add_row("", f"and {len(hosts) - HOST_LISTED} more kinds, with --json or --html")
    if card.peers is not None:
        beside = ", ".join(f"{device} {text}" for device, text in peer_texts(card))
        table.add_row("beside others", plain(f"energy of {card.peers.network}: {beside}"))
        table.add_row("", plain(f"{card.peers.source}; {card.peers.note}"))
    console.print(table)
    console.print(plain(summary(card)), soft_wrap=True)


def print_difference(difference: Difference, console: Console) -> None:
    console.print(plain(f"A: {difference.a}\nB: {difference.b}"))
    table = Table()
    for name in ("figure", "A", "B", "B is"):
        table.add_column(name, justify="left" if name in ("figure", "B is") else "right", overflow="fold")
    for row in difference.figures:
        table.add_row(*row_texts(row))
    console.print(table)
    changed = [row for row in difference.layers if row.a_cycles != row.b_cycles or row.a_energy_uj != row.b_energy_uj]
    if not changed:
        console.print("every layer costs the same")
        return
    layers = Table(title=f"layers that changed most, {min(LAYERS_LISTED, len(changed))} of {len(changed)}")
    for name in ("layer", "cycles A", "cycles B", "uJ A", "uJ B"):
        layers.add_column(name, justify="left" if name == "layer" else "right", overflow="fold")
    for row in changed[:LAYERS_LISTED]:
        layers.add_row(
            plain(row.name),
            *("-" if v is None else f"{v:,}" for v in (row.a_cycles, row.b_cycles)),
            *("-" if v is None else f"{v:,.3g}" for v in (row.a_energy_uj, row.b_energy_uj)),
        )
    console.print(layers)


def _grid() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table
