"""What every benchmark shares: its options, a table, and ``--json FILE``."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Collection

from rich.console import Console
from rich.table import Table

from tvm_ergo.files import check_writable, write_atomically


def parser(description: str) -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    result.add_argument("--nets", nargs="*", metavar="NAME", help="only these nets")
    return result


def parse(arguments: argparse.ArgumentParser, argv=None) -> argparse.Namespace:
    parsed = arguments.parse_args(argv)
    if parsed.json:
        check_writable(parsed.json)
    return parsed


def show(title: str, rows: list[dict], json_path: str | None = None, hidden: Collection[str] = ()) -> None:
    """Prints the rows as one table and writes them, with the machine they were measured on, as JSON. hidden : columns
    only of the JSON."""
    table = Table(title=title, title_justify="left")
    for key in [key for key in rows[0] if key not in hidden] if rows else ():
        table.add_column(key, justify="left" if isinstance(rows[0][key], str) else "right", overflow="fold")
    for row in rows:
        table.add_row(
            *(
                f"{v:,.4g}" if isinstance(v, float) else "" if v is None else str(v)
                for key, v in row.items()
                if key not in hidden
            )
        )
    Console(width=150).print(table)
    if json_path:
        save(title, rows, json_path)


def save(title: str, rows: list[dict], json_path: str) -> None:
    """The rows as JSON, with the machine they were measured on."""
    machine = {"machine": platform.machine(), "python": platform.python_version(), "cpus": len(os.sched_getaffinity(0))}
    write_atomically(json_path, json.dumps({"title": title, **machine, "rows": rows}, indent=1))
