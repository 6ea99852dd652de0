"""ergo.toml: options that are repeated, read as if they had been typed; what is typed goes before."""

import pytest

from tvm_ergo.cli import build_parser, main
from tvm_ergo.cli.configuration import configured


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parsed(folder, text: str, *words: str):
    (folder / "ergo.toml").write_text(text)
    return configured(build_parser(), list(words))


def test_without_a_file_nothing_changes(folder):
    assert vars(configured(build_parser(), ["compile", "net.onnx"])) == vars(
        build_parser().parse_args(["compile", "net.onnx"])
    )


def test_tables_of_a_command_and_of_all(folder, capsys):
    text = '[all]\ntarget = "ergo/2"\nfps = [5, 10]\n[compile]\nmemory = "512KiB"\nstrict = true\n'
    found = parsed(folder, text, "compile", "net.onnx", "-o", "net.ergo")
    assert (found.target, found.memory, found.strict, found.fps) == ("ergo/2", 512 << 10, True, [5.0, 10.0])
    told = capsys.readouterr()
    assert told.err == "tvm-ergo: from ergo.toml: target, fps, memory, strict\n" and not told.out
    assert parsed(folder, text, "card", "net.onnx").memory is None  # that table is of compile
    assert parsed(folder, text, "ops").run and not capsys.readouterr().err.endswith("ops")


def test_what_is_typed_goes_before(folder):
    text = '[all]\nmemory = "1MiB"\nfps = [5]\nstream = true\n'
    assert parsed(folder, text, "compile", "net.onnx", "--memory", "2MiB").memory == 2 << 20
    assert parsed(folder, text, "compile", "net.onnx", "--memory=2MiB").memory == 2 << 20
    assert parsed(folder, text, "report", "net.onnx", "--fps", "30").fps == [30.0]
    assert parsed(folder, "[all]\nstream = false\n", "compile", "net.onnx").stream is False


def test_a_compiled_model_is_not_told_how_to_be_compiled(folder):
    found = parsed(folder, '[all]\nmemory = "1MiB"\ntarget = "ergo/2"\nfps = [5]\n', "report", "net.ergo")
    assert found.memory is None and found.target == "ergo" and found.fps == [5.0]


@pytest.mark.parametrize(
    "text, said",
    [
        ("memory = 3", "outside of a table"),
        ("[compile]\nmemry = 3", "did you mean memory?"),
        ("[compil]\nmemory = 3", "did you mean compile?"),
        ("[all]\nmemory = [", "cannot be read"),
        ("[all]\nstrict = 1", "required: true or false"),
        ("[all]\nmemory = true", "required: a text or a number"),
        ('[all]\nmemory = ["1KiB", "2KiB"]', "takes one value has several"),
        ("[all]\nhelp = true", "has no option help"),
    ],
)
def test_wrong_files(folder, capsys, text, said):
    (folder / "ergo.toml").write_text(text)
    assert main(["compile", "net.onnx"]) == 2
    assert said in capsys.readouterr().err


def test_a_wrong_value_is_answered_as_when_typed(folder, capsys):
    (folder / "ergo.toml").write_text('[all]\nmemory = "many"\n')
    with pytest.raises(SystemExit) as ended:
        main(["compile", "net.onnx"])
    assert ended.value.code == 2 and "memory" in capsys.readouterr().err


def test_completion_scripts_know_commands_and_options(capsys):
    for shell in ("bash", "zsh"):
        assert main(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert "tvm-ergo" in script and "export-c" in script and "--strict-accuracy" in script
