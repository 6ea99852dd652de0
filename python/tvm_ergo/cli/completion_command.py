"""A completion script for your shell, made by shtab from the commands' own options.

tvm-ergo completion bash > ~/.local/share/bash-completion/completions/tvm-ergo
tvm-ergo completion zsh > ~/.zfunc/_tvm-ergo          with ~/.zfunc in fpath
"""

from __future__ import annotations

HELP = "a completion script for bash, zsh or tcsh"


def add_arguments(parser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="the shell")


def run(arguments) -> int:
    import shtab

    from tvm_ergo.cli import build_parser

    print(shtab.complete(build_parser(), shell=arguments.shell))
    return 0
