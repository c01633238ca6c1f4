"""The environment: created once, no work when nothing has changed, repaired when incomplete or broken, and every
failure explained in one sentence.

The real code runs here, with tiny wheels in place of the real packages and no index.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from lora_studio.bootstrap import ROOT, environment, pip, torch_build
from lora_studio.bootstrap.environment import Environment
from lora_studio.errors import MachineError

RENEW_PIP = Environment._renew_pip


def wheel(folder: Path, name: str, version: str, code: str = "") -> None:
    """A wheel of one module."""
    info = f"{name}-{version}.dist-info"
    content = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        for path, text in {**content, f"{info}/RECORD": record}.items():
            file.writestr(path, text)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    wheel(folder, "torch", "2.13.0")
    wheel(folder, "torch", "2.13.0+cu130")
    wheel(folder, "brush", "1.0", "STROKES = 1")
    wheel(folder, "brush", "2.0", "STROKES = 2")
    wheel(folder, "checker", "1.0")
    return folder


@pytest.fixture(scope="module", autouse=True)
def machine(wheels):
    """A machine without a graphics card and without an index: only the wheels above."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "LORA_STUDIO_TORCH"):
            patch.delenv(name, raising=False)
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(wheels))
        for has in ("has_nvidia", "has_amd", "has_intel"):
            patch.setattr(torch_build, has, lambda: False)
        patch.setattr(Environment, "_renew_pip", lambda self: None)
        yield


def required(root: Path, *lines: str) -> Environment:
    (root / "requirements.txt").write_text("\n".join(["# what it needs", "torch==2.13.0", *lines]))
    return Environment(root)


@pytest.fixture(scope="module")
def made(tmp_path_factory, machine) -> Path:
    """The root of a finished environment, to copy."""
    root = tmp_path_factory.mktemp("made")
    required(root, "brush==1.0").prepare()
    return root


@pytest.fixture
def ready(made, tmp_path) -> Environment:
    """A finished environment of one's own."""
    shutil.copytree(made, tmp_path / "studio", symlinks=True)
    found = Environment(tmp_path / "studio")
    assert found.ready()
    return found


@pytest.fixture
def no_pip(monkeypatch):
    monkeypatch.setattr(pip, "install", lambda *_, **__: pytest.fail("pip was called"))


def strokes(made: Environment) -> int:
    return int(
        subprocess.run(
            [made.python, "-c", "import brush; print(brush.STROKES)"], capture_output=True, text=True, check=True
        ).stdout
    )


def test_a_fresh_folder_becomes_an_environment_with_what_is_required(ready):
    assert strokes(ready) == 1
    stamp = json.loads(ready.stamp_file.read_text())
    assert stamp["torch"] == "default" and not {"nvidia", "amd", "intel"} & stamp.keys()


def test_a_second_start_is_free(ready, no_pip):
    began = time.process_time()
    ready.prepare()
    assert time.process_time() - began < 0.5


def test_changed_requirements_are_brought_in_and_progress_is_told_in_plain_lines(ready, capfd):
    """The first start takes minutes: a silent one looks hung."""
    required(ready.folder.parent, "brush==2.0")
    assert not ready.ready()
    ready.prepare()
    assert ready.ready() and strokes(ready) == 2
    said = capfd.readouterr().err
    assert "libraries …" in said and "libraries: installing 1 package" in said and "ready after" in said
    assert "\r" not in said and "Requirement already" not in said


def test_an_old_pip_that_cannot_be_renewed_is_used_as_it_is(ready, monkeypatch, capfd):
    """A company's mirror may not have it."""
    required(ready.folder.parent, "brush==2.0")
    monkeypatch.setattr(Environment, "_renew_pip", RENEW_PIP)
    monkeypatch.setattr(environment, "PIP", "pip==99.0")
    monkeypatch.setattr(pip, "version", lambda _: (23, 2))
    ready.prepare()
    assert strokes(ready) == 2 and "Continuing with the installed one" in capfd.readouterr().err


def test_changed_constraints_count_as_changed_requirements(ready):
    (ready.folder.parent / "constraints.txt").write_text("brush==1.0\n")
    assert not ready.ready()


def test_extra_requirements_come_on_top_and_stay(ready, no_pip, monkeypatch):
    extra = ready.folder.parent / "requirements-test.txt"
    extra.write_text("checker==1.0\n")
    assert ready.ready() and not ready.ready(extra)
    monkeypatch.undo()
    ready.prepare(extra)
    assert ready.ready() and ready.ready(extra) and strokes(ready) == 1


def test_a_package_that_vanished_is_brought_back(ready):
    site = next(ready.folder.glob("lib/python3*/site-packages"))
    (site / "brush.py").unlink()
    shutil.rmtree(site / "brush-1.0.dist-info")
    assert not ready.ready()
    ready.prepare()
    assert strokes(ready) == 1


def test_a_half_installed_package_does_not_pass_for_installed(ready):
    """Killed between the package's description and its list of files: pip would call the requirement satisfied."""
    site = next(ready.folder.glob("lib/python3*/site-packages"))
    (site / "brush.py").unlink()
    (site / "brush-1.0.dist-info" / "RECORD").unlink()
    (site / "~rush").mkdir()
    ready.stamp_file.unlink()
    ready.prepare()
    assert strokes(ready) == 1 and not (site / "~rush").exists()


def test_an_environment_whose_python_is_gone_is_made_anew(ready):
    """The system's Python was upgraded or removed: the link leads nowhere."""
    ready.python.unlink()
    assert not ready.ready()
    ready.prepare()
    assert ready.ready() and strokes(ready) == 1


def test_an_environment_without_pip_does_not_pass_for_whole(ready):
    """A first start that was killed while venv was at work leaves a Python that runs and cannot install."""
    assert ready._python_runs()
    shutil.rmtree(next(ready.folder.glob("lib/python3*/site-packages/pip")))
    assert not ready._python_runs()


@pytest.mark.parametrize("fact", ["machine", "python"])
def test_an_environment_of_another_machine_or_python_is_not_used(ready, fact):
    """A folder that was copied over, or a system that was upgraded under it."""
    ready.stamp_file.write_text(json.dumps({**json.loads(ready.stamp_file.read_text()), fact: "plan9"}))
    assert not ready.ready()


@pytest.mark.parametrize("stamp", ["", "{", "[]", "null"])
def test_a_damaged_stamp_is_no_stamp(ready, stamp):
    ready.stamp_file.write_text(stamp)
    assert not ready.ready()


def test_two_first_starts_make_one_environment(ready):
    """Two starts at once must not install over each other; the second waits and finds all done."""
    ready.stamp_file.unlink()
    (ready.folder / "install.log").unlink()
    code = "; ".join(
        (
            f"import sys; sys.path.insert(0, {str(ROOT)!r})",
            "from pathlib import Path",
            "from lora_studio.bootstrap.environment import Environment",
            "from lora_studio.bootstrap import torch_build",
            "torch_build.has_nvidia = lambda: False",
            f"Environment(Path({str(ready.folder.parent)!r})).prepare()",
        )
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=120)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert sum("waiting for it" in one for one in said) == 1
    assert (ready.folder / "install.log").read_text().count("brush==1.0") == 1


def test_an_interrupted_start_continues(ready, monkeypatch):
    real = pip.install

    def interrupted(title, *arguments, **named):
        if title == "libraries":
            raise KeyboardInterrupt
        real(title, *arguments, **named)

    required(ready.folder.parent, "brush==2.0")
    monkeypatch.setattr(pip, "install", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ready.prepare()
    assert not ready.ready()
    monkeypatch.setattr(pip, "install", real)
    ready.prepare()
    assert strokes(ready) == 2


# Failures, each in one clear sentence


def test_a_missing_package_names_itself_and_the_python(ready):
    required(ready.folder.parent, "brush==9.0")
    with pytest.raises(MachineError, match=r"There is no brush==9.0 for Python 3") as caught:
        ready.prepare()
    assert "Traceback" not in str(caught.value)


def test_a_missing_venv_module_names_debians_package(tmp_path, monkeypatch):
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else object())
    with pytest.raises(MachineError, match=rf"apt install python3.{sys.version_info[1]}-venv"):
        required(tmp_path).prepare()


def test_a_full_disk_is_told_before_anything_is_fetched(tmp_path, monkeypatch, no_pip):
    monkeypatch.setattr(
        environment.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**10, 10**10 - 10**8, 10**8)
    )
    with pytest.raises(MachineError, match="needs about 3 GB, but only 0.1 GB are free"):
        required(tmp_path).prepare()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / ".venv").write_text("a file")
    with pytest.raises(MachineError, match="cannot be written"):
        required(tmp_path).prepare()


@pytest.mark.parametrize(("line", "said"), [
    ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk filled up"),
    (
        "WARNING: Retrying after connection broken by 'NewConnectionError(... Temporary failure in name resolution)'",
        "could not be reached",
    ),
    ("ERROR: No matching distribution found for torch==2.13.0", "There is no torch==2.13.0 for Python 3"),
    ("error: something that nobody foresaw", "something that nobody foresaw"),
])  # fmt: skip
def test_pips_output_becomes_advice(tmp_path, line, said):
    error = pip.explain(
        "libraries", ["Collecting brush", line, "[notice] A new release of pip is available"], tmp_path / "install.log"
    )
    assert said in str(error)
    assert error.do and "notice" not in str(error)


def test_a_torch_that_does_not_start_is_told(ready, wheels):
    site = next(ready.folder.glob("lib/python3*/site-packages"))
    (site / "torch.py").write_text("raise OSError('libcudart.so: cannot open shared object file')")
    ready.stamp_file.unlink()
    with pytest.raises(MachineError, match="libcudart"):
        ready.prepare()
    assert not ready.ready()


# Which PyTorch


def smi(folder: Path, monkeypatch, says: str) -> None:
    """An nvidia-smi that says so."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(torch_build, "has_nvidia", lambda: True)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
@pytest.mark.parametrize(("says", "build"), [
    ("590.10, 8.6", "cu130"),   # RTX 3060
    ("580.65.06, 12.0", "cu130"),  # RTX 5090
    ("535.120, 8.9", "cu126"),  # RTX 4090, an old driver
    ("590.10, 6.1", "cu126"),   # GTX 1080: CUDA 13 does not know it
    ("NVIDIA-SMI has failed", "cu130"),
])  # fmt: skip
def test_the_build_follows_the_card_and_its_driver(tmp_path, monkeypatch, says, build):
    smi(tmp_path, monkeypatch, says)
    assert torch_build.choose() == build


def test_without_a_card_the_pinned_default_is_taken_and_a_users_word_counts_most(monkeypatch):
    assert torch_build.choose() == "default"
    monkeypatch.setenv("LORA_STUDIO_TORCH", "cpu")
    assert torch_build.choose() == "cpu"


HAS_AMD, HAS_INTEL = torch_build.has_amd, torch_build.has_intel


@pytest.mark.skipif(os.name == "nt", reason="Linux's files")
@pytest.mark.parametrize(("target", "intel", "build"), [
    (None, {}, "default"),
    ("110000", {}, "rocm7.2"),  # RX 7900 XTX
    ("100306", {}, "default"),  # graphics within a Ryzen, which the build has no kernels for
    (None, {"0000:03:00.0": "0x8086"}, "xpu"),  # an Arc card
    (None, {"0000:00:02.0": "0x8086"}, "default"),  # graphics within a Core
    (None, {"0000:03:00.0": "0x10de"}, "default"),  # another maker's
])  # fmt: skip
def test_cards_of_amd_and_intel_get_their_builds(target, intel, build, tmp_path, monkeypatch):
    """As Linux shows them under /sys."""
    nodes, drm = tmp_path / "nodes", tmp_path / "drm"
    for number, found in enumerate(["0", target]):  # the first node is the processor
        if found:
            (nodes / str(number)).mkdir(parents=True)
            (nodes / str(number) / "properties").write_text(f"simd_count 64\ngfx_target_version {found}\n")
    for number, (address, vendor) in enumerate(intel.items()):
        (tmp_path / address).mkdir()
        (tmp_path / address / "vendor").write_text(f"{vendor}\n")
        (drm / f"card{number}").mkdir(parents=True)
        (drm / f"card{number}" / "device").symlink_to(tmp_path / address)
    monkeypatch.setattr(torch_build, "_AMD_NODES", nodes)
    monkeypatch.setattr(torch_build, "_CARDS", drm)
    monkeypatch.setattr(torch_build, "has_amd", HAS_AMD)
    monkeypatch.setattr(torch_build, "has_intel", HAS_INTEL)
    assert torch_build.choose() == build and bool(torch_build.cards()) == (build != "default")
    monkeypatch.setenv("LORA_STUDIO_TORCH", "cpu")
    assert torch_build.choose() == "cpu"


def test_a_card_gets_the_cuda_build_of_the_very_same_version(ready, tmp_path, monkeypatch):
    """On Windows the package index has CPU builds only; and a pin without its build would count as satisfied."""
    monkeypatch.setattr(torch_build, "has_nvidia", lambda: True)
    monkeypatch.setattr(torch_build, "choose", lambda: "cu130")
    assert not ready.ready(), "a card that was put in later must be noticed"
    ready.prepare()
    assert ready.ready() and next(ready.folder.glob("lib/python3*/site-packages/torch-2.13.0+cu130.dist-info"))


def test_where_pytorchs_index_does_not_answer_linux_takes_the_default(ready, monkeypatch, capfd):
    monkeypatch.setattr(torch_build, "has_nvidia", lambda: True)
    monkeypatch.setattr(torch_build, "choose", lambda: "cu999")
    ready.prepare()
    assert json.loads(ready.stamp_file.read_text())["torch"] == "default" and ready.ready()
    assert "own index does not have it" in capfd.readouterr().err


# app.py


def app(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "app.py", *arguments], capture_output=True, text=True, env={**os.environ, **variables}
    )


def test_app_stays_a_few_lines_and_can_be_read_by_any_python_3():
    """An older Python must get as far as the sentence that tells it so."""
    text = (ROOT / "app.py").read_text("utf-8")
    ast.parse(text, feature_version=(3, 4))
    assert text.count("\n") < 20 and text.index("version_info") < text.index("lora_studio import")


def test_an_old_python_is_told_so():
    code = f"import sys; sys.version_info = (3, 9, 1); exec(open({str(ROOT / 'app.py')!r}).read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        done.returncode != 0
        and "needs Python 3.11 or newer; this is 3.9" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_app_uses_the_interpreters_own_packages_when_told():
    done = app("--version", LORA_STUDIO_NO_VENV="1")
    assert (done.returncode, done.stdout.split()[0]) == (0, "LoRA"), done.stderr


def test_an_interpreter_that_lacks_packages_says_which(ready, monkeypatch):
    """In a container, ``LORA_STUDIO_NO_VENV`` must not end in a traceback about an import."""
    monkeypatch.setattr("importlib.metadata.distributions", list)
    with pytest.raises(MachineError, match="Not installed: torch, brush.*pip install -r requirements.txt"):
        ready.require_here()


@pytest.mark.skipif(os.name == "nt", reason="links")
def test_app_runs_in_the_environment_with_all_its_arguments(ready):
    """A whole start: the system's Python finds the environment ready and hands over to it."""
    root = ready.folder.parent
    shutil.copy(ROOT / "app.py", root)
    (root / "lora_studio" / "cli").mkdir(parents=True)
    for name in ("errors.py", "__init__.py"):
        shutil.copy(ROOT / "lora_studio" / name, root / "lora_studio")
    shutil.copytree(ROOT / "lora_studio" / "bootstrap", root / "lora_studio" / "bootstrap")
    (root / "lora_studio" / "cli" / "__init__.py").write_text(
        "import sys\ndef main():\n    print(sys.prefix, *sys.argv[1:], sep='|')\n    return 7\n"
    )
    (root / "lora_studio" / "bootstrap" / "torch_build.py").write_text("wanted = lambda: ''\ncards = lambda: []\n")
    variables = {key: value for key, value in os.environ.items() if key != "LORA_STUDIO_NO_VENV"}
    done = subprocess.run(
        [sys.executable, root / "app.py", "a b", '"c'], cwd=root.parent, capture_output=True, text=True, env=variables
    )
    assert (done.returncode, done.stdout.strip()) == (7, f'{ready.folder}|a b|"c'), done.stderr
