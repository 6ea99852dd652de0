"""Writes text token by token on the emulated chip, and says what it costs.

tvm-ergo compile stories.onnx --calibration tokens.npz --generate --tokenizer vocabulary.npz -o stories.ergo
tvm-ergo generate stories.ergo --prompt "Once upon a time" --tokens 100
tvm-ergo generate stories.ergo --prompt-tokens 1,403,407 --tokens 20 --json -"""

from __future__ import annotations

from tvm_ergo.cli.common import add_programs_only, check_result_paths, console, write_text

HELP = "write text with a compiled model"


def add_arguments(parser) -> None:
    parser.add_argument("model", help="a model compiled with --generate (.ergo)")
    parser.add_argument("--prompt", default="", help="how the text begins")
    parser.add_argument("--prompt-tokens", metavar="N,N,...", help="the same as token numbers")
    parser.add_argument("--tokens", type=int, default=100, help="how many to write at most (default 100)")
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="0 (default) takes the likeliest token, more draws one"
    )
    parser.add_argument("--top-k", type=int, default=0, help="draws from so many likeliest tokens (0: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--tokenizer", metavar="FILE", help="vocabulary, where the model holds none")
    parser.add_argument("--json", metavar="FILE", help="text, tokens and costs as JSON (- for standard output)")
    add_programs_only(parser)


def run(arguments) -> None:
    import json
    from dataclasses import replace

    import tvm_ergo
    from tvm_ergo.cli.models import is_compiled
    from tvm_ergo.target.errors import InputError
    from tvm_ergo.tokenizer import Tokenizer

    check_result_paths(arguments)
    if not is_compiled(arguments.model):
        raise InputError(
            "this model is not compiled",
            where=arguments.model,
            remedy=f"tvm-ergo compile {arguments.model} --calibration FILE.npz --generate -o model.ergo",
        )
    model = tvm_ergo.load(arguments.model, programs_only=arguments.programs_only)
    if arguments.tokenizer:
        model = replace(model, tokenizer=Tokenizer.read(arguments.tokenizer))
    found = model.generate(
        _prompt(arguments),
        tokens=arguments.tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        seed=arguments.seed,
    )
    write_text(arguments.json, json.dumps(found.to_json()))
    out = console(arguments)
    out.print(found.text if found.text is not None else " ".join(map(str, found.tokens)))
    for name, spent in (("prompt", found.prefill), ("written", found.decode)):
        if spent.tokens:
            out.print(
                f"{name}: {spent.tokens} tokens in {spent.cycles:,} cycles, {spent.seconds * 1e6:,.1f} us: "
                f"{spent.tokens_per_second:,.0f} tokens/s, {spent.uj_per_token:.3g} uJ a token, {spent.mw:.0f} mW"
            )


def _prompt(arguments):
    from tvm_ergo.target.errors import InputError

    if arguments.prompt_tokens is None:
        return arguments.prompt
    if arguments.prompt:
        raise InputError("--prompt and --prompt-tokens are two prompts", remedy="give one of the two")
    try:
        return [int(n) for n in arguments.prompt_tokens.split(",")]
    except ValueError:
        raise InputError(
            "--prompt-tokens are no numbers", available=arguments.prompt_tokens, remedy="--prompt-tokens 1,403,407"
        ) from None
