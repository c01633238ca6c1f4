"""Writes leave the old content or the new, and nothing beside it."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio import files, runs
from lora_studio.config.settings import Settings


def test_writes_text_and_bytes_and_makes_the_folder(tmp_path):
    files.write(tmp_path / "a" / "b.txt", "größe")
    files.write(tmp_path / "a" / "c.bin", b"\x00\xff")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "größe".encode()
    assert (tmp_path / "a" / "c.bin").read_bytes() == b"\x00\xff"


def test_a_crash_before_the_rename_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    """Faults 39 to 41."""
    path = tmp_path / "settings.toml"
    files.write(path, "old")

    def crash(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["settings.toml"]


@pytest.mark.fault(40)
def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    """A rename that outruns its content gives an empty file after a power cut."""
    happened = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda handle: (
            happened.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file"),
            sync(handle),
        )[1],
    )
    monkeypatch.setattr(os, "replace", lambda *names: (happened.append("rename"), replace(*names))[1])
    files.write(tmp_path / "a.txt", "x")
    assert happened.index("file") < happened.index("rename") < len(happened) - 1
    assert happened[-1] == "folder"


def test_replace_gives_a_whole_folder_its_name(tmp_path):
    partial = tmp_path / "step-5.partial"
    partial.mkdir()
    (partial / "state").write_text("x")
    files.replace(partial, tmp_path / "step-5")
    assert (tmp_path / "step-5" / "state").read_text() == "x" and not partial.exists()


@pytest.mark.fault(43)
def test_only_what_nobody_holds_is_swept(tmp_path):
    (tmp_path / "deep").mkdir()
    orphans = [tmp_path / "a.bin.111.partial", tmp_path / "deep" / "b.partial", tmp_path / "step-5.111.partial"]
    orphans[0].touch(), orphans[1].touch(), orphans[2].mkdir()
    (orphans[2] / "state.111.partial").touch()
    held, others = tmp_path / "c.bin.222.partial", tmp_path / "my partial"
    held.touch(), others.touch()
    assert set(files.sweep(tmp_path, lives=lambda process: process == 222)) >= set(orphans)
    assert {path.name for path in tmp_path.rglob("*")} == {"deep", held.name, others.name}


@pytest.mark.fault(41, 56)
def test_a_disk_that_refuses_is_told_apart(tmp_path):
    """ "Errno 28" helps nobody: a full disk tells its room, a read-only one or one that is gone tells the place."""
    full = files.refusal(
        OSError(28, "No space left on device"), "The adapter could not be written", tmp_path / "not" / "yet"
    )
    assert isinstance(full, files.DiskFull) and "MB are free" in full.what
    gone = files.refusal(OSError(30, "Read-only file system", "/media/card/x"), "The run cannot continue", tmp_path)
    assert (
        not isinstance(gone, files.DiskFull) and gone.where == "/media/card/x" and "Read-only file system" in gone.what
    )


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert files.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_free_name_passes_over_what_is_there(tmp_path):
    path = tmp_path / "cat-1.png"
    assert files.free(path) == path
    path.touch()
    assert files.free(path).name == "cat-1-2.png"
    files.free(path).touch()
    assert files.free(path).name == "cat-1-3.png"


@pytest.mark.fault(19, 61, 62)
@pytest.mark.parametrize(("text", "name"), [
    ("ink", "ink"),
    ("Ma Tante: été", "Ma-Tante-été"),
    ("e\u0301te\u0301", "été"),
    ("../../etc/passwd", "passwd"),
    ("C:\\styles\\ink", "ink"),
    ("CON", "run-CON"),
    ("nul.txt", "run-nul.txt"),
    ("...", "run"),
    ("", "run"),
    ("🎨", "run"),
    (".hidden", "hidden"),
    ("a" * 100, "a" * 60),
    ("あ" * 100, "あ" * 60),
    ("𝔞" * 100, "𝔞" * 45),
])  # fmt: skip
def test_names_that_every_system_takes(text, name):
    assert files.safe_name(text) == name


@pytest.mark.fault(19, 61)
@given(st.text(max_size=80))
def test_a_name_is_never_a_path_nor_hidden_nor_empty(text):
    name = files.safe_name(text)
    assert name and name == os.path.basename(name) and not name.startswith((".", "-")) and not name.endswith((".", " "))
    assert len(name.encode()) <= 255 and not set(name) & set('<>:"/\\|?*\n\0')
    assert files.safe_name(name) == name


@pytest.mark.fault(65)
def test_threads_that_write_one_path_all_succeed(tmp_path):
    """With one temporary name for a process, 55 of 120 writes failed: one thread renamed the file of another."""
    path, texts = tmp_path / "settings.toml", [str(number) * 5000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for written in [pool.submit(files.write, path, text) for text in texts * 15]:
            written.result()
    assert path.read_text() in texts
    assert [entry.name for entry in tmp_path.iterdir()] == ["settings.toml"]


def test_no_two_partial_names_are_the_same_and_each_tells_its_writer(tmp_path):
    path = tmp_path / ("長" * 80 + ".safetensors")
    names = {files.partial(path) for _ in range(100)}
    assert len(names) == 100 and all(len(name.name.encode()) <= 255 for name in names)
    for name in names:
        name.touch()
    assert files.sweep(tmp_path, lives=lambda process: process == os.getpid()) == []
    assert set(files.sweep(tmp_path, lives=lambda process: False)) == names


def test_what_cannot_be_swept_stays_and_the_rest_goes(tmp_path, monkeypatch):
    """On Windows a file that is open cannot be deleted; a worker must still start."""
    held, other = tmp_path / "a.111.partial", tmp_path / "b.111.partial"
    held.touch(), other.touch()
    unlink = os.unlink
    monkeypatch.setattr(os, "unlink", lambda path: sharing_violation() if Path(path) == held else unlink(path))
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    assert files.sweep(tmp_path, lives=lambda process: False) == [other] and held.exists()


@pytest.mark.fault(66)
@pytest.mark.parametrize("refusal", ["EINVAL", "EBADF", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EPERM"])
def test_a_file_system_that_cannot_sync_folders_takes_runs(tmp_path, monkeypatch, refusal):
    """A network drive that knows no fsync of folders made every run impossible."""
    refuse_sync(monkeypatch, os.path.isdir, getattr(errno, refusal))
    files.write(tmp_path / "a" / "b.txt", "new")
    assert (tmp_path / "a" / "b.txt").read_text() == "new"
    run = runs.create(Settings(data="pictures", name="ink"), tmp_path / "outputs")
    assert run.settings().run.name == "ink"


@pytest.mark.parametrize("kind", [os.path.isdir, os.path.isfile])
@pytest.mark.parametrize("failure", ["EIO", "ENOSPC", "EDQUOT", "EROFS"])
def test_a_disk_that_fails_to_sync_is_reported(tmp_path, monkeypatch, kind, failure):
    """Only what says that folders cannot be synced may be passed over."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    refuse_sync(monkeypatch, kind, getattr(errno, failure))
    with pytest.raises(OSError) as raised:
        files.write(path, "new")
    assert raised.value.errno == getattr(errno, failure)


@pytest.mark.parametrize("refusal", ["EINVAL", "EBADF", "ENOTSUP", "EPERM"])
def test_content_that_cannot_be_synced_is_never_called_written(tmp_path, monkeypatch, refusal):
    path = tmp_path / "a.txt"
    path.write_text("old")
    refuse_sync(monkeypatch, os.path.isfile, getattr(errno, refusal))
    with pytest.raises(OSError):
        files.write(path, "new")
    assert path.read_text() == "old" and [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def refuse_sync(monkeypatch, kind, number):
    """Lets the sync of what is of that ``kind`` fail."""
    sync = os.fsync

    def fsync(handle):
        if kind(os.readlink(f"/proc/self/fd/{handle}")):
            raise OSError(number, os.strerror(number))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)


def sharing_violation(*_):
    """What Windows raises while another program has the file open."""
    error = PermissionError(errno.EACCES, "The process cannot access the file", "a.txt")
    error.winerror = 32
    raise error


ONCE_REFUSED = {
    "write": ("replace", lambda path: files.write(path, "new"), lambda path: path.read_text() == "new"),
    "copy": ("replace", lambda path: files.copy(path.with_name("other"), path), lambda path: path.read_text() == "x"),
    "unlink": ("unlink", files.unlink, lambda path: not path.exists()),
    "remove": ("replace", lambda path: files.remove(path.with_name("folder")), lambda path: True),
}


@pytest.mark.fault(67)
@pytest.mark.parametrize("operation", ONCE_REFUSED)
@pytest.mark.parametrize("times", [1, 3, 1000])
def test_a_file_that_another_program_has_open_is_waited_for_a_while(tmp_path, monkeypatch, operation, times):
    """A virus scanner opens each new file for a moment, and on Windows nobody can rename or delete it meanwhile."""
    call, act, done = ONCE_REFUSED[operation]
    path = tmp_path / "a.txt"
    path.write_text("old"), path.with_name("other").write_text("x"), path.with_name("folder").mkdir()
    real, left, waited = getattr(os, call), [times], []

    def busy(*arguments):
        left[0] -= 1
        return (
            real(*arguments)
            if left[0] < 0 or Path(arguments[0]).suffix == files.PARTIAL and call == "unlink"
            else sharing_violation()
        )

    monkeypatch.setattr(os, call, busy)
    monkeypatch.setattr(files.time, "sleep", waited.append)
    if times < 1000:
        act(path)
        assert done(path) and 0 < sum(waited) < 1
    else:
        with pytest.raises(PermissionError) as raised:
            act(path)
        assert 0.5 < sum(waited) < 2 and path.read_text() == "old"
        told = files.refusal(raised.value, "The settings could not be saved", path)
        assert "another program has the file open" in told.what and "Close that program" in told.do
    assert not [*tmp_path.glob("*" + files.PARTIAL)]


def test_a_file_that_may_not_be_changed_is_not_waited_for(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    monkeypatch.setattr(files.time, "sleep", lambda seconds: pytest.fail("waited"))
    with pytest.raises(PermissionError):
        files.write(tmp_path / "a.txt", "new")


@pytest.mark.fault(78)
@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EACCES, "permission"),
        (errno.EPERM, "permission"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "failure"),
        (errno.ENOENT, "still exists"),
        (errno.ENAMETOOLONG, "shorter names"),
        (errno.EMFILE, "close other programs"),
        (errno.ECONNRESET, "connected and writable"),
    ],
)
def test_the_advice_fits_the_cause(tmp_path, number, said):
    """Missing permissions were answered with "Free some space"."""
    refused = files.refusal(OSError(number, os.strerror(number), "x"), "It cannot be saved", tmp_path)
    assert said in refused.do and refused.what.startswith("It cannot be saved: ")
    assert ("Free some space" in refused.do) == (number == errno.ENOSPC)
    assert isinstance(refused, files.DiskFull) == (number == errno.ENOSPC)


@pytest.mark.fault(78)
def test_no_other_room_advises_to_free_space_whatever_the_cause():
    """Where the cause is an OSError, ``refusal`` and ``advice`` know what to do. The others found too little space."""
    rooms = Path(files.__file__).parent
    asked = {
        path.relative_to(rooms).as_posix() for path in rooms.rglob("*.py") if "Free some space" in path.read_text()
    }
    assert asked == {"files.py", "bootstrap/environment.py", "bootstrap/pip.py", "cli/doctor.py", "hub.py"}


def test_many_files_are_written_or_none_is_replaced(tmp_path, monkeypatch):
    contents = {tmp_path / folder / f"{number}.txt": b"new" for folder in ("", "in") for number in range(20)}
    (tmp_path / "3.txt").write_bytes(b"old")
    fill = files._fill
    with monkeypatch.context() as patch:
        patch.setattr(files, "_fill", lambda path, content: refuse() if path.name[0] == "7" else fill(path, content))
        with pytest.raises(OSError, match="No space"):
            files.write_all(contents)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["3.txt"] and (tmp_path / "3.txt").read_bytes() == b"old"
    files.write_all(contents)
    found = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert found == contents


def refuse():
    raise OSError(28, "No space left on device")
