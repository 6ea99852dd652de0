"""Models that write: entries in one memory, token by token as the whole sequence, their files, the command."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest

import tvm_ergo
from tvm_ergo import container
from tvm_ergo.cli import main
from tvm_ergo.compiled import CompiledModel
from tvm_ergo.entries import Kind
from tvm_ergo.target.errors import InputError, OutOfMemoryError, ProgramError, UnsupportedError
from tvm_ergo.target.machine import Machine
from tvm_ergo.target.program import BufferKind
from tvm_ergo.tokenizer import BEGIN, Tokenizer

from . import decoders, nets

VOCABULARY = Tokenizer(
    (b"<unk>", b"<s>", b"</s>", *(f"<0x{n:02X}>".encode() for n in range(256)), b" ", b"a", b"b", b"ab", b" ab", b"c"),
    (*(0.0,) * 259, -1.0, -2.0, -3.0, -1.5, -1.0, -4.0),
)


@pytest.fixture(scope="module")
def writer():
    feeds = decoders.samples(3)
    model = decoders.decoder(True, decoders.GROUPS)
    return tvm_ergo.compile(model, calibration=feeds, generate=True, lengths=[6, 12]), feeds


def test_entries_share_one_memory(writer):
    """The same constants in all Programs, the caches at the same addresses, in the map and in the peak of each."""
    model, _ = writer
    assert [e.name for e in model.entries] == ["prefill_6", "prefill_12", "decode_6", "decode_12", "decode_24"]
    programs = {e.name: next(iter(e.model.programs.values())) for e in model.entries}
    programs["whole"] = next(iter(model.programs.values()))
    data = programs["whole"].data
    assert len({c for _, c in data}) == len(data)
    kept = {(b.name, b.addr, b.size_bytes) for b in programs["whole"].buffers if b.kind == BufferKind.STATE}
    assert len(kept) == 4
    for name, program in programs.items():
        program.validate()
        assert program.data == data
        states = [b for b in program.buffers if b.kind == BufferKind.STATE]
        assert {(b.name, b.addr, b.size_bytes) for b in states} == kept
        assert all((b.first, b.last) == (0, len(program.instructions)) for b in states)
        assert program.meta["peak_bytes"] == max(b.addr + b.size_bytes for b in program.buffers)
        feeds = {p.name: np.zeros(p.operand.shape, p.operand.dtype.numpy) for p in program.inputs}
        Machine(program, model.chip, strict=True).run(feeds)


def test_text_is_that_of_the_whole_sequence(writer):
    """The likeliest token of each step is the one of the whole sequence; longer sequences, dearer steps."""
    model, feeds = writer
    for prompt in (feeds[0]["ids"][0, :4].tolist(), feeds[1]["ids"][0, :15].tolist()):
        found = model.generate(prompt, tokens=100)
        assert found.ended == "full" and len(found.tokens) == decoders.S and found.prompt == len(prompt)
        logits = model.run({"ids": np.array(found.tokens)[None]}).outputs["logits"][0]
        assert found.tokens[len(prompt) :] == tuple(logits[len(prompt) - 1 : -1].argmax(-1).tolist())
        assert found.decode.cycles > found.decode.tokens > 0 and found.prefill.tokens == len(prompt)
    steps = [e.model.run(_one_token(e)).calls[0].trace for e in model.entries if e.kind is Kind.DECODE]
    assert [t.cycles for t in steps] == sorted({t.cycles for t in steps})


def _one_token(entry) -> dict:
    return {"ids": np.zeros((1, 1), np.int64), "position": np.zeros(1, np.int32)}


def test_texts_at_a_time_do_not_meet(writer):
    """What a run leaves is its own, whoever else runs the same Programs."""
    model, _ = writer
    prompts = [[1, n] for n in range(2, 8)]
    alone = [model.generate(p, tokens=15).tokens for p in prompts]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda p: model.generate(p, tokens=15).tokens, prompts))
    assert together == alone


def test_draws_are_seeded(writer):
    model, _ = writer
    drawn = [model.generate([1, 5], tokens=12, temperature=3.0, seed=n).tokens for n in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1
    assert model.generate([1, 5], tokens=12, temperature=3.0, top_k=1) == model.generate([1, 5], tokens=12)


def test_shorter_arrays_take_the_smallest_entry(writer):
    model, feeds = writer
    ids = feeds[0]["ids"]
    whole = model.run({"ids": ids}).outputs["logits"]
    for tokens, entry in ((1, "prefill_6"), (6, "prefill_6"), (7, "prefill_12"), (20, "whole")):
        result = model.run(ids[:, :tokens])
        np.testing.assert_array_equal(result.outputs["logits"], whole[:, :tokens])
        assert [c.symbol for c in result.calls] == [entry]


def test_the_file_holds_each_constant_once(writer, tmp_path):
    model, feeds = writer
    path = tmp_path / "writer.ergo"
    model.save(path)
    again = tvm_ergo.load(path, programs_only=True)
    largest = max((c for _, c in next(iter(model.programs.values())).data), key=len)
    assert path.read_bytes().count(largest) == 1
    assert again.generate([1, 2, 3], tokens=9) == model.generate([1, 2, 3], tokens=9)
    assert again.entries == model.entries
    assert not again.is_code
    np.testing.assert_array_equal(
        again.run(feeds[0]["ids"][:, :5]).outputs["logits"], model.run(feeds[0]["ids"][:, :5]).outputs["logits"]
    )


def test_damaged_files_are_refused(writer):
    sections = container.unpacked(writer[0].to_bytes(), "a file")
    for name in ("constants", "chain:decode_12", "program:prefill_6", "chain"):
        for content in (None, b"", sections[name][:-3]):
            damaged = {n: c for n, c in sections.items() if n != name}
            if content is not None:
                damaged[name] = content
            with pytest.raises(ProgramError):
                CompiledModel._of(damaged, "a file", False)


def test_a_small_file_does_not_repeat_large_constants(writer):
    """Each entry's Program has all constants: what that takes counts before it is taken."""
    from tvm_ergo.target.limits import model_bytes_limit

    sections = container.unpacked(writer[0].to_bytes(), "a file")
    limit = len(sections["constants"]) * len(writer[0].entries)  # and the whole network's Program has them too
    with model_bytes_limit(limit), pytest.raises(ProgramError, match="constants"):
        CompiledModel._of(sections, "a file", False)


def test_the_coldest_draw_is_the_likeliest(writer):
    model, _ = writer
    assert model.generate([1, 5], tokens=8, temperature=5e-324) == model.generate([1, 5], tokens=8)


def test_what_is_asked_wrongly(writer):
    model, feeds = writer
    for arguments, match in (
        ({"prompt": "text"}, "vocabulary"),
        ({"prompt": []}, "no tokens"),
        ({"prompt": [1] * decoders.S}, "fewer than 24"),
        ({"prompt": [1], "temperature": -1}, "temperature"),
        ({"prompt": [1], "tokens": 0}, "tokens"),
    ):
        with pytest.raises(InputError, match=match):
            model.generate(**arguments)
    net = decoders.decoder(True)
    with pytest.raises(InputError, match="2 to 24"):
        tvm_ergo.compile(net, calibration=feeds, lengths=[25])
    with pytest.raises(InputError, match="list of integers"):
        tvm_ergo.compile(net, calibration=feeds, lengths="6")
    with pytest.raises(UnsupportedError, match="token by token"):
        tvm_ergo.compile(nets.form("no mask")[0], calibration=nets.form("no mask")[1], generate=True)
    alone = next(iter(tvm_ergo.compile(net, calibration=feeds).programs.values())).meta["peak_bytes"]
    with pytest.raises(OutOfMemoryError, match="entries"):
        tvm_ergo.compile(net, calibration=feeds, lengths=[6], generate=True, memory=alone + 200)


def test_an_encoder_with_a_mask():
    """Filled up where the mask hides it; without a mask only the lengths there are."""
    model, feeds = nets.form("(1 - m) * c")
    compiled = tvm_ergo.compile(model, calibration=feeds, lengths=[4, 6])
    (name,) = [o.name for o in compiled.outputs]
    for tokens, symbol in ((3, "whole_4"), (5, "whole_6"), (8, "whole")):
        mask = (np.arange(nets.S) < tokens).astype(np.int64)[None]
        whole = compiled.run({"x": feeds[0]["x"] * mask[..., None].astype(np.float32), "m": mask}).outputs[name]
        result = compiled.run({"x": feeds[0]["x"][:, :tokens], "m": mask[:, :tokens]})
        np.testing.assert_array_equal(result.outputs[name], whole[:, :tokens])
        assert [c.symbol for c in result.calls] == [symbol]
    model, feeds = nets.form("no mask")
    compiled = tvm_ergo.compile(model, calibration=feeds, lengths=[4])
    assert compiled.run(feeds[0]["x"][:, :4]).outputs[name].shape[1] == 4
    with pytest.raises(InputError, match="lengths 3|3 tokens"):
        compiled.run(feeds[0]["x"][:, :3])


def test_tokenizer():
    assert VOCABULARY.encode("") == [BEGIN]
    assert VOCABULARY.encode("abc") == [BEGIN, 263, 264]
    assert VOCABULARY.encode("b\u00e9") == [BEGIN, 259, 261, 3 + 0xC3, 3 + 0xA9]
    for text in ("ab ab", "c\u00e9 b", "\u4e16 a"):
        assert VOCABULARY.decode(VOCABULARY.encode(text)) == text
    assert Tokenizer.from_bytes(VOCABULARY.to_bytes()) == VOCABULARY
    with pytest.raises(InputError, match="no token 999"):
        VOCABULARY.decode([999])


def test_vocabulary_files(tmp_path):
    npz, binary = tmp_path / "v.npz", tmp_path / "v.bin"
    np.savez(npz, vocab=np.array(VOCABULARY.pieces), vocab_scores=np.array(VOCABULARY.scores, np.float32))
    pieces = [
        np.float32(s).tobytes() + len(p).to_bytes(4, "little") + p for p, s in zip(VOCABULARY.pieces, VOCABULARY.scores)
    ]
    binary.write_bytes((7).to_bytes(4, "little") + b"".join(pieces))
    assert Tokenizer.read(npz) == Tokenizer.read(binary) == VOCABULARY
    for content in (b"", b"\1\2\3\4\5", binary.read_bytes()[:-1]):
        binary.write_bytes(content)
        with pytest.raises(InputError, match="vocabulary"):
            Tokenizer.read(binary)


def test_commands(tmp_path, capsys):
    net, data, vocabulary, compiled = (str(tmp_path / n) for n in ("n.onnx", "d.npz", "v.npz", "n.ergo"))
    onnx.save(decoders.decoder(False), net)
    np.savez(data, ids=np.concatenate([f["ids"] for f in decoders.samples(3)]))
    np.savez(vocabulary, vocab=np.array(VOCABULARY.pieces), vocab_scores=np.array(VOCABULARY.scores))
    options = ["--calibration", data, "--generate", "--lengths", "6", "--tokenizer", vocabulary]
    assert main(["compile", net, *options, "-o", compiled]) == 0
    capsys.readouterr()
    assert main(["generate", compiled, "--prompt-tokens", "1,7,9", "--tokens", "5", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tokens"][:3] == [1, 7, 9] and told["prompt_tokens"] == 3 and told["decode"]["uj_per_token"] > 0
    assert main(["report", compiled, "--json", "-"]) == 0
    rows = {r["name"]: r for r in json.loads(capsys.readouterr().out)["entries"]}
    assert list(rows) == ["prefill_6", "decode_6", "decode_24"]
    assert rows["decode_6"]["cycles"] < rows["decode_24"]["cycles"] and rows["prefill_6"]["tokens"] == 6
    for entry, code in (("decode_24", 0), ("decode_7", 2)):
        assert main(["export-c", compiled, "-o", str(tmp_path / entry), "--entry", entry]) == code
    for wrong in (["--prompt-tokens", "x"], ["--prompt", "a", "--prompt-tokens", "1"], ["--tokens", "-1"]):
        assert main(["generate", compiled, *wrong]) == 2
    assert main(["generate", net]) == 2
