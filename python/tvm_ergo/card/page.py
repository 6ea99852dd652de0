"""The card as one small HTML page without scripts, for a mail or a wiki."""

from __future__ import annotations

from tvm_ergo.card.model import Card
from tvm_ergo.card.texts import answers, host_texts, peer_texts, summary
from tvm_ergo.printed import html_text

STYLE = """body{font:16px/1.5 system-ui,sans-serif;margin:2em auto;max-width:52em;padding:0 1em;color:#1f2933}
h1{font-size:1.4em}h2{font-size:1.1em;margin-top:1.6em}table{border-collapse:collapse;width:100%}
td{padding:.45em .8em .45em 0;border-bottom:1px solid #e4e7eb;vertical-align:top}
td:first-child{white-space:nowrap;font-weight:600}
.bad td{color:#b42318}.bar{background:#2f6fde;height:.8em;display:inline-block;min-width:2px}
.peer td:nth-child(2){white-space:nowrap}
code{font-size:.85em;overflow-wrap:anywhere}p.note{color:#52606d;font-size:.9em}"""


def card_page(card: Card) -> str:
    """The whole page as text."""
    bad = {"runs whole on the chip?": not card.whole, "memory?": not card.fits}
    rows = "".join(
        f"<tr{' class=bad' if bad.get(question) else ''}><td>{html_text(question)}</td>"
        f"<td>{html_text(answer)}</td></tr>"
        for question, answer in answers(card)
    )
    body = [
        f"<h1>{html_text(card.model)} on {html_text(card.chip)}</h1>",
        "<p class=note>The chip is assumed and emulated: bit-exact, with cycles, energy and bytes of its model.</p>",
        f"<table>{rows}</table>",
    ]
    if card.host:
        lines = "".join(f"<li>{html_text(line)}</li>" for line in host_texts(card))
        body.append(f"<h2>What falls off the chip, and what to do</h2><ul>{lines}</ul>")
    body += _peers(card)
    body.append(f"<h2>For scripts</h2><p><code>{html_text(summary(card))}</code></p>")
    return (
        f"<!doctype html><html lang=en><head><meta charset='utf-8'><meta name=viewport content='width=device-width'>"
        f"<title>{html_text(card.model)}</title><style>{STYLE}</style></head><body>{''.join(body)}</body></html>"
    )


def _peers(card: Card) -> list[str]:
    if card.peers is None:
        return []
    values = [card.energy_uj, *(row.energy_uj for row in card.peers.rows)]
    rows = "".join(
        f"<tr><td>{html_text(device)}</td><td>{html_text(text)}</td>"
        f"<td><span class=bar style='width:{30 * value / max(values):.2f}em'></span></td></tr>"
        for (device, text), value in zip(peer_texts(card), values, strict=True)
    )
    return [
        f"<h2>Energy of one inference beside others: {html_text(card.peers.network)}</h2>",
        f"<table class=peer>{rows}</table>",
        f"<p class=note>{html_text(card.peers.source)}; {html_text(card.peers.note)}.</p>",
    ]
