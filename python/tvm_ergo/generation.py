"""Text written token by token on the chip: a prompt at once, then one token after the other, each chosen from the
logits that the chip gives. Keys and values stay in the chip's memory in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from tvm_ergo import options as given
from tvm_ergo.entries import Entry, Kind
from tvm_ergo.target.errors import InputError
from tvm_ergo.tokenizer import BEGIN, END


@dataclass
class Spent:
    """What runs of the chip cost."""

    tokens: int = 0
    cycles: int = 0
    seconds: float = 0.0
    uj: float = 0.0

    def add(self, result, tokens: int) -> None:
        self.tokens += tokens
        for call in result.calls:
            self.cycles += call.trace.cycles
            self.seconds += call.trace.seconds
            self.uj += call.trace.energy_pj / 1e6

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def uj_per_token(self) -> float:
        return self.uj / self.tokens if self.tokens else 0.0

    @property
    def mw(self) -> float:
        return self.uj / 1e3 / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict:
        return {
            **asdict(self),
            "tokens_per_second": self.tokens_per_second,
            "uj_per_token": self.uj_per_token,
            "mw": self.mw,
        }


@dataclass(frozen=True)
class Generated:
    """tokens : all of them, the prompt's first. prompt : how many those are. text : of all, None without a vocabulary.
    prefill, decode : what the prompt, and the tokens behind it, cost. ended : why it stopped: "tokens" (as many as
    asked for), "end" (the text ended), "full" (the caches hold no more)."""

    tokens: tuple[int, ...]
    prompt: int
    text: str | None
    ended: str
    prefill: Spent = field(default_factory=Spent)
    decode: Spent = field(default_factory=Spent)

    def to_json(self) -> dict:
        return {
            "tokens": list(self.tokens),
            "prompt_tokens": self.prompt,
            "text": self.text,
            "ended": self.ended,
            "prefill": self.prefill.to_json(),
            "decode": self.decode.to_json(),
        }


def generate(
    model,
    prompt: str | Sequence[int] = "",
    *,
    tokens: int = 100,
    temperature: float = 0.0,
    top_k: int = 0,
    seed: int = 0,
) -> Generated:
    """The prompt and up to ``tokens`` tokens behind it.

    prompt : text, for a model with a vocabulary; or token numbers. temperature : 0 takes the likeliest token; above,
    one is drawn with the logits divided by it. top_k : of the so many likeliest only (0: of all). seed : of the draws.
    Errors: InputError."""
    tokens, top_k = given.whole_number("tokens", tokens), given.whole_number("top_k", top_k, 0)
    seed = given.whole_number("seed", seed, 0)
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not 0 <= temperature < 1e6:
        raise InputError("temperature is no number from 0 on", available=repr(temperature), remedy="temperature=0.8")
    decodes = sorted((e for e in model.entries if e.kind is Kind.DECODE), key=lambda e: e.length)
    if not decodes:
        raise InputError(
            "the model was not compiled to write text",
            where=model.source,
            remedy="compile it with generate=True (tvm-ergo compile --generate)",
        )
    numbers, whole = _numbers(model, prompt), decodes[-1].length
    if len(numbers) >= whole:
        raise InputError(
            f"the prompt has {len(numbers)} tokens",
            required=f"fewer than {whole}",
            where=model.source,
            remedy="give a text, or whole numbers of tokens, at least one",
        )
    rng, found, ended = np.random.default_rng(seed), list(numbers), "tokens"
    writing = _Writing(model, decodes)
    logits, prefill = writing.begin(numbers)
    decode = Spent()
    ends = {BEGIN, END} if model.tokenizer is not None else set()
    for _ in range(tokens):
        number = _next(logits, temperature, top_k, rng)
        if number in ends:
            ended = "end"
            break
        found.append(number)
        if len(found) >= whole:
            ended = "full"
            break
        if len(found) - len(numbers) < tokens:
            logits = writing.step(number, len(found) - 1, decode)
    text = None if model.tokenizer is None else model.tokenizer.decode(found)
    return Generated(tuple(found), len(numbers), text, ended, prefill, decode)


class _Writing:
    """One text under way. The states go from entry to entry as in the chip's memory, where they lie in one place."""

    def __init__(self, model, decodes: list[Entry]):
        self.decodes = decodes
        self.prefills = sorted((e for e in model.entries if e.kind is Kind.PREFILL), key=lambda e: e.length)
        self.input, self.output = model.inputs[0], model.outputs[0].name
        self.states = {s.name: s.initial for s in decodes[0].model.states}

    def begin(self, numbers: list[int]) -> tuple[np.ndarray, Spent]:
        """The logits behind the prompt. As much of it as an entry takes at once; the rest token by token."""
        spent, done, logits = Spent(), 0, None
        fitting = [e for e in self.prefills if e.length >= len(numbers)] or self.prefills[-1:]
        if fitting:
            length = fitting[0].length
            done = min(length, len(numbers))
            ids = np.zeros((1, length), self.input.dtype)
            ids[0, :done] = numbers[:done]
            result = self._run(fitting[0], {self.input.name: ids})
            spent.add(result, done)
            logits = result.outputs[self.output][0, done - 1]
        for position in range(done, len(numbers)):
            logits = self.step(numbers[position], position, spent)
        return logits, spent

    def step(self, number: int, position: int, spent: Spent) -> np.ndarray:
        """The logits behind a token at a position."""
        entry = next(e for e in self.decodes if e.length > position)
        feed = {self.input.name: np.full((1, 1), number, self.input.dtype), "position": np.array([position], np.int32)}
        result = self._run(entry, feed)
        spent.add(result, 1)
        return result.outputs[self.output][0, 0]

    def _run(self, entry: Entry, feed: dict):
        result = entry.model.run({**feed, **self.states})
        self.states = result.states
        return result


def _numbers(model, prompt) -> list[int]:
    if isinstance(prompt, str):
        if model.tokenizer is None:
            raise InputError(
                "the model has no vocabulary to read a prompt with",
                where=model.source,
                remedy="compile it with tokenizer=FILE (--tokenizer FILE), or give token numbers",
            )
        return model.tokenizer.encode(prompt)
    try:
        numbers = [int(n) for n in prompt]
    except (TypeError, ValueError):
        raise InputError(
            "the prompt is neither text nor token numbers",
            available=repr(prompt)[:80],
            remedy="give a text or a list of whole numbers",
        ) from None
    limits = np.iinfo(model.inputs[0].dtype)
    if not numbers or not all(limits.min <= n <= limits.max for n in numbers):
        raise InputError(
            "the prompt has no tokens, or numbers that are none",
            available=repr(numbers)[:80],
            remedy="give a text, or whole numbers of tokens, at least one",
        )
    return numbers


def _next(logits: np.ndarray, temperature: float, top_k: int, rng: np.random.Generator) -> int:
    if not temperature:
        return int(logits.argmax())
    real = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # however small the temperature: the likeliest is 0, and the others minus infinity
        scaled = (real - real.max()) / temperature
    if 0 < top_k < scaled.size:
        scaled[scaled < np.partition(scaled, -top_k)[-top_k]] = -np.inf
    odds = np.exp(scaled)
    return int(rng.choice(scaled.size, p=odds / odds.sum()))
