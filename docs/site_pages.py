"""Hook of mkdocs (mkdocs.yml): the pages that stand beside docs/ become pages of the site, and links between all of
them lead there."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
BESIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "AGENTS.md": "agents.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""By path in the repository, where it stands in the site."""
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s:]+)(\))")


def on_files(files, config):
    for path, uri in BESIDE.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links as in the repository become links of the site; those to files that are no pages become plain text."""
    source = next((p for p, uri in BESIDE.items() if uri == page.file.src_uri), f"docs/{page.file.src_uri}")

    def moved(match) -> str:
        path, _, anchor = match[2].partition("#")
        if not path:
            return match[0]
        target = _normal(PurePosixPath(source).parent / path)
        uri = BESIDE.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
        if uri is None or files.get_file_from_path(uri) is None:
            return match[1][1:-2] if not match[1].startswith("!") else match[0]
        return f"{match[1]}{uri}{'#' + anchor if anchor else ''}{match[3]}"

    return LINK.sub(moved, markdown)


def _normal(path: PurePosixPath) -> str:
    """Without ``..``."""
    parts: list[str] = []
    for part in path.parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)
