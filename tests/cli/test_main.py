"""What every command shares: status, one line for an error, a traceback on request."""

import subprocess
import sys

import pytest

from napari_sac import __version__
from napari_sac.cli.main import main


def run(*arguments, **options):
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, **options
    )


def test_version_and_help_are_printed(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"napari-sac {__version__}\n"
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for command in ("demo", "segment", "evaluate", "models", "doctor"):
        assert f"\n    {command} " in text


@pytest.mark.parametrize("arguments", [[], ["fly"], ["models", "--fast"], ["segment"]])
def test_wrong_arguments_end_with_status_2(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["demo", "segment", "evaluate", "models", "doctor"])
def test_every_command_explains_itself(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "--debug" in capsys.readouterr().out


def test_error_of_the_user_is_one_line(capsys):
    assert main(["models", "download", "nothing"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("napari-sac: There is no model nothing.")
    assert err.count("\n") == 1


@pytest.mark.parametrize("place", [0, 3])
def test_debug_shows_the_traceback_wherever_it_stands(capsys, place):
    arguments = ["models", "download", "nothing"]
    arguments.insert(place, "--debug")
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("napari-sac: There is no model nothing.")


class Interrupted:
    """A terminal at which Ctrl+C is pressed as soon as something is written."""

    def write(self, _):
        raise KeyboardInterrupt


def test_ctrl_c_ends_with_status_130(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Interrupted())
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "\nnapari-sac: stopped\n"


def test_python_m_is_the_same_program():
    result = run("-m", "napari_sac", "--version")
    assert result.stdout == f"napari-sac {__version__}\n"
    assert run("-m", "napari_sac", "models", "list", "x").returncode == 2


def test_reader_that_leaves_early_sees_no_traceback():
    with subprocess.Popen(
        [sys.executable, "-m", "napari_sac", "models"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize("debug", [False, True])
def test_fault_of_the_program_is_one_line_unless_debugged(debug):
    code = (
        "import sys; from napari_sac.cli import main, models\n"
        "models.run = lambda args: 1 / 0\n"
        "sys.exit(main.main())"
    )
    result = run("-c", code, "models", *(["--debug"] if debug else []))
    assert result.returncode == 1
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert ("Traceback" in result.stderr) == debug
    assert (result.stderr.count("\n") > 1) == debug


def test_import_leaves_the_heavy_packages_out():
    code = (
        "import sys, napari_sac.cli.main\n"
        "print(sorted({'torch', 'napari', 'peft', 'qtpy'} & set(sys.modules)))"
    )
    assert run("-c", code).stdout == "[]\n"
