"""What Triton needs to compile the fused kernels: brought where it is missing, and able to build what Triton builds."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lora_studio.bootstrap import torch_build, triton
from lora_studio.bootstrap.environment import Environment
from lora_studio.errors import MachineError

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="on Linux alone Triton calls a compiler")

DRIVER = """
#define PY_SSIZE_T_CLEAN
#include <dlfcn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <Python.h>
extern int cuInit(unsigned flags);
static PyObject *launch(PyObject *self, PyObject *args) {
  long long stream; double scale; PyObject *shape;
  if (!PyArg_ParseTuple(args, "LdO", &stream, &scale, &shape)) return NULL;
  PyObject *sides = PySequence_Fast(shape, "expected a sequence");
  if (!sides) return NULL;
  Py_ssize_t count = PySequence_Fast_GET_SIZE(sides);
  Py_DECREF(sides);
  bool there = dlopen("libcuda.so.1", RTLD_LAZY) != NULL;
  return Py_BuildValue("(Ldnii)", stream, scale, count, there, cuInit(0));
}
static PyMethodDef methods[] = {{"launch", launch, METH_VARARGS, ""}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "cuda_utils", NULL, -1, methods};
PyMODINIT_FUNC PyInit_cuda_utils(void) { return PyModule_Create(&module); }
"""
"""What Triton's extension is made of: the driver's library under its versioned name, and Python's own structures."""


@pytest.fixture
def place(tmp_path):
    """A folder with that source, and a driver's library that answers 42."""
    (tmp_path / "cuda.c").write_text("int cuInit(unsigned flags) { return 42; }\n")
    (tmp_path / "cuda_utils.c").write_text(DRIVER)
    library = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(tmp_path / "libcuda.so.1")]
    subprocess.run([*triton.compiler(), str(tmp_path / "cuda.c"), *library], check=True)
    return tmp_path


@LINUX
@pytest.mark.parametrize("hidden", [False, True], ids=["the system's", "Zig's"])
def test_an_extension_like_tritons_is_compiled_and_imported(place, monkeypatch, hidden):
    """A compiler that does not know what Triton asks of it, or builds for another C library, is as none."""
    if hidden:
        if not importlib.util.find_spec(triton.ZIG):
            pytest.skip(f"needs the package {triton.ZIG}")
        monkeypatch.setenv("PATH", str(place))
        monkeypatch.delenv("CC", raising=False)
        assert triton.compiler()[0] == sys.executable and not triton.complete()
    made = triton.build("cuda_utils", str(place / "cuda_utils.c"), str(place), [str(place)], [], ["libcuda.so.1"])
    code = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("cuda_utils", {made!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.launch(7, 2.5, (1, 2, 3)))
"""
    found = {**os.environ, "LD_LIBRARY_PATH": str(place)}
    assert subprocess.check_output([sys.executable, "-c", code], env=found, text=True) == "(7, 2.5, 3, 1, 42)\n"


@LINUX
def test_what_does_not_compile_says_why(place):
    (place / "cuda_utils.c").write_text("this is no C;\n")
    with pytest.raises(RuntimeError, match="cannot compile cuda_utils: .*error"):
        triton.build("cuda_utils", str(place / "cuda_utils.c"), str(place), [], [], [])


@LINUX
def test_a_machine_without_compiler_and_headers_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(triton, "find_spec", lambda _: None)
    assert triton.lacking(tmp_path).startswith("Install a C compiler")
    monkeypatch.setattr(triton, "_system_headers", lambda: tmp_path)
    assert "sudo apt install python3." in triton.lacking(tmp_path)
    with pytest.raises(RuntimeError, match="Install Python's headers"):
        triton.build("x", "x.c", str(tmp_path), [], [], [])


@LINUX
def test_debians_headers_are_unpacked_into_the_environment(tmp_path, monkeypatch):
    """Nobody is root; and a half unpacked folder must not pass for headers."""
    tools, environment = tmp_path / "tools", tmp_path / "venv"
    tools.mkdir()
    for name, does in {"apt-get": "touch $2.deb", "dpkg-deb": f"mkdir -p $3/usr/include/{triton._ABOUT}"}.items():
        (tools / name).write_text(f"#!/bin/sh\n{does}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(triton, "_system_headers", lambda: tmp_path)
    assert not triton.fetch_headers(environment) and triton.headers(environment) == []
    with open(tools / "dpkg-deb", "a") as script:
        script.write(f"touch $3/usr/include/{triton._ABOUT}/Python.h\n")
    assert triton.fetch_headers(environment)
    ours = environment / "python-headers"
    assert triton.headers(environment) == [str(ours / triton._ABOUT), str(ours)]
    (tools / "apt-get").write_text("#!/bin/sh\nexit 100\n")
    shutil.rmtree(environment)
    assert not triton.fetch_headers(environment), "without a network"


@pytest.mark.parametrize(
    ("system", "machine", "compiler", "wanted"),
    [
        ("win32", "AMD64", "", ["triton-windows"]),
        ("win32", "ARM64", "", []),
        ("linux", "x86_64", "/usr/bin/gcc", []),
        ("linux", "x86_64", "", ["ziglang"]),
        ("darwin", "arm64", "", []),
    ],
)
def test_a_card_brings_what_its_system_lacks(monkeypatch, system, machine, compiler, wanted):
    monkeypatch.setattr(triton.sys, "platform", system)
    monkeypatch.setattr(triton.platform, "machine", lambda: machine)
    monkeypatch.setattr(triton, "_system_compiler", lambda: compiler)
    assert triton.packages() == wanted
    held = (Path(__file__).parent.parent / "constraints.txt").read_text()
    assert all(f"\n{name}==" in held for name in wanted), "its version is held"


def test_an_environment_is_whole_without_them(tmp_path, monkeypatch, capfd):
    """No network for one package must not keep the studio from starting."""
    made, asked = Environment(tmp_path), []

    def install(_, title, *packages):
        asked.append(packages)
        raise MachineError("There is no network.")

    monkeypatch.setattr(Environment, "_install", install)
    monkeypatch.setattr(torch_build, "has_nvidia", lambda: True)
    monkeypatch.setattr(triton, "packages", lambda: ["ziglang"])
    monkeypatch.setattr(triton, "headers", lambda _: [])
    monkeypatch.setattr(triton, "fetch_headers", lambda _: False)
    made._bring_triton()
    said = capfd.readouterr().err
    assert asked == [("ziglang",)] and "training is slower: There is no network." in said
    assert sys.platform != "linux" or "Python's headers" in said
