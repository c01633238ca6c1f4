"""The command line: every command for real on a tiny model, every mistake in one message and exit status 2."""

import importlib
import importlib.util
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tomli_w
from PIL import Image

from lora_studio import cli, files, runs, starter
from lora_studio.cli import chromium, doctor, generate, options, quickstart, watch
from lora_studio.config import presets
from lora_studio.config.settings import Settings
from lora_studio.dataset import folder, manifest
from lora_studio.errors import AdapterError, MachineError
from lora_studio.jobs import control, runner
from lora_studio.jobs.control import Request
from lora_studio.runs import checkpoints
from lora_studio.sampling import picture_file
from tests.jobs.conftest import no_worker_outlives_its_test, worker  # noqa: F401
from tests.training.conftest import pictures, tiny_base  # noqa: F401

FEW = [
    "steps=3",
    "rank=2",
    "alpha=2",
    "batch=2",
    "resolution=64",
    "preview_steps=2",
    "preview_every=0",
    "validate_every=0",
    "checkpoint_every=2",
    "device=cpu",
    "preview_prompts=a disc",
]


def told(capfd) -> tuple[dict, str]:
    """The last line of standard output as JSON, and all of standard error."""
    said = capfd.readouterr()
    return json.loads(said.out.splitlines()[-1]), said.err


# Mistakes


@pytest.mark.parametrize(("arguments", "said"), [
    (["trian"], "Did you mean 'train'"),
    (["train", "--dtaa", "x"], "--data"),
    (["train"], "There is no folder of pictures"),
    (["train", "--data", "/none/such"], "no folder"),
    (["train", "--data", ".", "--preset", "style-balance"], "Did you mean style-balanced"),
    (["train", "--data", ".", "--set", "rnak=8"], "Did you mean rank"),
    (["train", "--data", ".", "--set", "rank"], "key=value"),
    (["train", "--data", ".", "--set", "rank=0"], "rank must be a whole number from 1 to 1,024; it is 0. "),
    (["train", "--data", ".", "--set", "rank=x"], "rank must be a whole number from 1 to 1,024; it is 'x'. "),
    (["train", "--data", ".", "--set", "method=lorra"], "method must be one of: lora, dora, pissa"),
    (["train", "--data", ".", "--set", "method=lorra"], "it is 'lorra'. Did you mean lora?"),
    (["train", "--data", ".", "--set", "flip=maybe"], "flip must be on or off; it is 'maybe'. "),
    (["train", "--data", ".", "--set", "alpha=0"], "alpha must be a number above 0 and at most 4,096; it is 0.0. "),
    (["train", "--data", ".", "--set", "dropout=1"], "dropout must be a number at least 0 and below 1; it is 1.0. "),
    (["train", "--data", ".", "--gpus", "2"], "batch is 1, which 2 GPUs cannot share evenly"),
    (["train", "--data", ".", "--dry-run", "--queue"], "A trial does not wait in the queue"),
    (["resume"], "RUN"),
    (["resume", "none"], "no run named 'none'"),
    (["generate"], "There is no prompt"),
    (["generate", "--prompt", "x", "--adapter", "none.safetensors:0.5"], "no adapter none.safetensors"),
    (["generate", "--prompt", "x", "--sampler", "eular"], "sampler"),
    (["generate", "--prompt", "x", "--steps", "0"], "steps"),
    (["generate", "--prompt", "x", "--flow-shift", "-1"], "equal to 0. python3 app.py generate --help"),
    (["--port", "99999"], "port"),
    (["--no-browser", "doctor"], "cannot be combined with a command"),
])  # fmt: skip
def test_a_mistake_exits_with_2_and_one_clear_message(arguments, said, tmp_path, capfd):
    if arguments[0] in ("resume", "train"):
        arguments = [*arguments, "--outputs", str(tmp_path / "outputs")]
    assert cli.main(arguments) == 2
    out, err = capfd.readouterr()
    assert said in err and "Traceback" not in err and len(err.strip().splitlines()) == 1 and not out
    assert not (tmp_path / "outputs").exists() or not runs.existing(tmp_path / "outputs"), (
        "a mistake must not leave a run behind"
    )


def test_programs_get_the_mistake_as_json(capfd):
    assert cli.main(["train", "--json"]) == 2
    error, err = told(capfd)
    assert error == {
        "error": {
            "what": "There is no folder of pictures.",
            "where": "--data",
            "do": "Write for example: python3 app.py train --data my-pictures",
        }
    }
    assert "There is no folder" in err


def test_a_fault_of_ours_says_so_and_exits_with_1(monkeypatch, capfd):
    monkeypatch.setattr("lora_studio.config.presets.layered", lambda *_, **__: 1 / 0)
    assert cli.main(["train", "--json"]) == 1
    error, err = told(capfd)
    assert "Internal error: ZeroDivisionError" in error["error"]["what"] and "Traceback" in err


def test_a_pipe_that_cannot_take_a_letter_does_not_end_the_command(tmp_path):
    """Windows' pipes speak code page 1252, which has no √."""
    done = subprocess.run(
        [sys.executable, "-m", "lora_studio", "train", "--help"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1252:strict"},
    )
    assert done.returncode == 0, done.stderr


def test_help_lists_every_command(capfd):
    assert cli.main(["--help"]) == 0
    out = capfd.readouterr().out
    assert all(f"  {command} " in out for command in ("train", "resume", "generate", "quickstart", "doctor", "test"))


def test_an_image_is_named_after_its_whole_prompt():
    """All before the last slash or escaped bracket is lost, as if it were folders."""
    assert picture_file.file_name(r"ink \(style\), black/white", 7) == "ink-style-black-white-7.png"


def test_commands_compute_with_patient_threads(monkeypatch, capfd):
    """Beside another busy program, a sheet drawn with threads that spin took three and a half minutes instead of twenty
    seconds.
    """
    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert cli.main(["--help"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command, capfd):
    assert cli.main([command, "--help"]) == 0
    assert "Usage: app.py" in capfd.readouterr().out


def test_a_damaged_preset_does_not_break_other_commands(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("lora_studio.config.presets.FOLDER", tmp_path)
    (tmp_path / "bad.toml").write_text("title = ")
    assert cli.main(["resume", "none", "--outputs", str(tmp_path)]) == 2
    assert "no run named" in capfd.readouterr().err


# The studio


def test_without_a_command_the_studio_opens(tmp_path):
    """In a process of its own, since the page's modules load gradio."""
    code = f"""
import lora_studio.ui.studio as studio
from lora_studio import cli
from pathlib import Path
calls = []
studio.launch = lambda *arguments: calls.append(arguments)
assert cli.main([]) == 0 and cli.main(["--port", "7999", "--no-browser", "--outputs", {str(tmp_path)!r}]) == 0
from lora_studio.runs import OUTPUTS
assert [call[:3] for call in calls] == [(None, True, OUTPUTS), (7999, False, Path({str(tmp_path)!r}))], calls
assert {{call[3:] for call in calls}} == {{("127.0.0.1", None)}}, calls
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Watching a run


@pytest.fixture
def run(tmp_path, pictures):  # noqa: F811
    return runs.create(Settings(data=str(pictures), name="ink"), tmp_path / "outputs")


STEPS = """
log.append(Started(total_steps=3, images=6, device="CPU", precision="fp32", parameters=100, modules=2))
for n in range(1, 4):
    log.append(StepDone(step=n, loss=n / 10, learning_rate=1e-4, images_per_second=2.0, eta=3.0 - n))
"""
AVERAGE = (0.81 * 0.1 + 0.9 * 0.2 + 0.3) / (0.81 + 0.9 + 1)
"""Of the losses 0.1, 0.2 and 0.3, as the curve shows it."""
UNTIL_STOPPED = """
log.append(StateChanged(state=State.RUNNING))
while not (Path(sys.argv[1]) / "control" / "stop").exists():
    time.sleep(0.02)
"""
FINISH = "log.append(Finished(adapter='ink.safetensors', steps=3, seconds=0.5, final_loss=0.25, stopped=True))\n"


def resumed(run, *more) -> int:
    return cli.main(["resume", run.name, "--outputs", str(run.folder.parent), "--json", *more])


def test_progress_is_told_in_plain_lines_where_nobody_watches(run, worker, capfd):  # noqa: F811
    worker(STEPS + "log.append(Warned(what='A picture is small.', where='a.png'))\n" + FINISH)
    assert resumed(run) == 0
    result, err = told(capfd)
    assert result == {
        "adapter": str(run.folder / "ink.safetensors"),
        "run": str(run.folder),
        "steps": 3,
        "seconds": 0.5,
        "final_loss": 0.25,
        "average_loss": pytest.approx(AVERAGE),
        "previews": [],
    }
    assert (
        "Training 3 steps on 6 pictures. CPU, fp32" in err
        and f"step 3 of 3, average loss {AVERAGE:.4f}, 2 pictures/s" in err
        and "A picture is small. [a.png]" in err
    )
    assert "\x1b" not in err


def test_the_command_that_tries_the_adapter_can_be_pasted(run, worker, capfd):  # noqa: F811
    """It lacked a prompt, and was refused."""
    prompt = "inkstyle, a cat's house"
    worker(STEPS + f"log.append(PreviewReady(step=3, index=0, prompt={prompt!r}, seed=1, path='x.png'))\n" + FINISH)
    assert cli.main(["resume", "ink", "--outputs", str(run.folder.parent)]) == 0
    out = capfd.readouterr().out
    command = shlex.split(next(line for line in out.splitlines() if "generate" in line))
    base = ["--base", run.settings().run.base] if run.settings().run.base != "starter" else []
    adapter = str(run.folder / "ink.safetensors")
    assert command == ["python3", "app.py", "generate", "--adapter", adapter, *base, "--prompt", prompt]
    assert f"average loss {AVERAGE:.4f}." in out


def test_a_failed_run_says_why_with_the_field_and_the_fix(run, worker, capfd):  # noqa: F811
    worker("log.append(Failed(what='The memory is full.', where='batch', do='Set batch to 1.'))\n")
    assert resumed(run) == 2
    result, _ = told(capfd)
    assert result == {"error": {"what": "The memory is full.", "where": "batch", "do": "Set batch to 1."}}


def test_a_run_resumes_with_another_number_of_gpus(run, worker, capfd):  # noqa: F811
    """As on another machine; that they cannot share the batch is said before anything begins."""
    presets.save_settings(run.settings().changed(batch=4), run.settings_file)
    worker(STEPS + FINISH)
    saved(run, 2, 3)
    assert resumed(run, "--gpus", "3", "--step", "2") == 2 and "cannot share" in told(capfd)[0]["error"]["what"]
    assert run.settings().machine.gpus == 1 and runs.existing(run.folder.parent) == [run]
    assert resumed(run, "--gpus", "2") == 0 and run.settings().machine.gpus == 2


@pytest.mark.fault(38)
def test_a_killed_worker_is_reported_and_how_to_resume(run, worker, capfd):  # noqa: F811
    """A command that waits for a dead worker waits for ever."""
    worker(STEPS + "import os; os.kill(os.getpid(), 9)\n")
    assert resumed(run) == 2
    result, _ = told(capfd)
    assert "ended unexpectedly" in result["error"]["what"] and "resume ink" in result["error"]["do"]


def saved(run, *steps):
    """States with nothing in them but what they were saved on."""
    about = {
        "settings": run.settings().flat(),
        "pictures": manifest.manifest(folder.scan(Path(run.settings().run.data))),
    }
    for step in steps:
        files.write(run.checkpoint(step) / checkpoints.ABOUT, json.dumps(about))
        files.write(
            run.checkpoint(step) / checkpoints.MANIFEST,
            json.dumps({checkpoints.ABOUT: files.sha256(run.checkpoint(step) / checkpoints.ABOUT)}),
        )


@pytest.mark.fault(46)
def test_a_run_whose_pictures_or_settings_changed_is_resumed_only_when_that_is_accepted(run, worker, capfd):  # noqa: F811
    """The differences are shown, and it is for the user to say."""
    worker(STEPS + FINISH)
    saved(run, 2)
    presets.save_settings(run.settings().changed(learning_rate=0.01), run.settings_file)
    assert resumed(run) == 2
    result, _ = told(capfd)
    assert (
        "Learning rate was 0.0003 and is now 0.01." in result["error"]["what"]
        and "--accept-changes" in result["error"]["do"]
    )
    assert not run.events_file.exists(), "nothing was started"
    assert resumed(run, "--accept-changes") == 0


def test_an_older_state_starts_a_new_run(run, worker, capfd):  # noqa: F811
    """What was learned since must not be lost because somebody tries another way."""
    worker(FINISH)
    saved(run, 2, 4)
    assert resumed(run, "--step", "4") == 0
    assert told(capfd)[0]["run"] == str(run.folder)
    assert resumed(run, "--step", "2") == 0
    result, err = told(capfd)
    assert result["run"] == str(run.folder.parent / "ink-from-2") and "as the new run ink-from-2" in err
    assert [state.step for state in checkpoints.listed(run)] == [2, 4]
    assert resumed(run, "--step", "3") == 2 and "Its saved states: 2, 4" in capfd.readouterr().err


def test_the_rate_of_a_chosen_optimizer_is_told_before_the_start(run, worker, capfd):  # noqa: F811
    """A preset's rate of AdamW is not Prodigy's; and one that learns nothing is warned of."""
    worker(FINISH)
    outputs, data = run.folder.parent, run.settings().run.data
    command = ["train", "--data", data, "--preset", "quick-look", "--outputs", str(outputs), "--json"]
    command += ["--set", "optimizer=prodigy"]
    assert cli.main([*command, "--name", "usual"]) == 0
    assert "The learning rate is 1, the usual one of Prodigy" in capfd.readouterr().err
    assert runs.find("usual", outputs).settings().optimizer.learning_rate == 1.0
    assert cli.main([*command, "--name", "slow", "--set", "learning_rate=1e-4"]) == 0
    assert "Prodigy will learn next to nothing at a learning rate of 0.0001." in capfd.readouterr().err
    assert runs.find("slow", outputs).settings().optimizer.learning_rate == 1e-4


def test_a_branch_takes_its_parents_settings_and_those_given(run, worker, capfd):  # noqa: F811
    worker(FINISH)
    saved(run, 2, 4)
    assert (
        cli.main(
            [
                "train",
                "--from",
                "ink@2",
                "--set",
                "learning_rate=0.01",
                "--name",
                "bold",
                "--outputs",
                str(run.folder.parent),
                "--json",
            ]
        )
        == 0
    )
    made = runs.find("bold", run.folder.parent)
    assert made.settings() == run.settings().changed(name="bold", learning_rate=0.01) and made.parent()["step"] == 2
    assert "continues from ink, step 2, with the whole saved state" in capfd.readouterr().err


def test_states_are_listed_and_starred(run, capfd):
    arguments = ["checkpoints", "ink", "--outputs", str(run.folder.parent)]
    assert cli.main(arguments) == 0 and "has no saved states yet" in capfd.readouterr().out
    saved(run, 2, 4)
    assert cli.main([*arguments, "--star", "2", "--json"]) == 0
    assert [(one["step"], one["starred"]) for one in told(capfd)[0]["checkpoints"]] == [(2, True), (4, False)]
    assert cli.main([*arguments, "--star", "4", "--unstar", "2"]) == 0
    assert [line[0] for line in capfd.readouterr().out.splitlines()] == [" ", "*"]


@pytest.mark.fault(90)
def test_a_damaged_state_is_listed_as_such_and_resumed_past_only_when_that_is_accepted(run, worker, capfd):  # noqa: F811
    worker(STEPS + FINISH)
    saved(run, 2, 4)
    (run.checkpoint(4) / checkpoints.ABOUT).write_text("{}")
    assert cli.main(["checkpoints", "ink", "--outputs", str(run.folder.parent)]) == 0
    good, bad = capfd.readouterr().out.splitlines()
    assert "step       2" in good and "MB" in good
    assert bad == "  step       4  damaged: about.json is not as it was saved"
    assert resumed(run) == 2
    what = told(capfd)[0]["error"]["what"]
    assert "The saved state of step 4 is damaged" in what and "The run goes back to step 2." in what
    assert resumed(run, "--accept-changes") == 0


@pytest.mark.fault(92)
def test_a_run_whose_pictures_moved_is_resumed_at_their_new_place(run, worker, capfd, tmp_path):  # noqa: F811
    worker(STEPS + FINISH)
    saved(run, 2)
    shutil.copytree(run.settings().run.data, tmp_path / "moved")
    presets.save_settings(run.settings().changed(data=str(tmp_path / "gone")), run.settings_file)
    assert resumed(run) == 2
    assert "resume ink --data FOLDER" in told(capfd)[0]["error"]["do"]
    assert resumed(run, "--data", str(tmp_path / "moved")) == 0
    assert run.settings().run.data == str(tmp_path / "moved")


def test_a_run_waits_in_the_queue_and_the_command_returns(run, worker, capfd):  # noqa: F811
    worker(UNTIL_STOPPED + FINISH)
    runner.start(run)
    other = runs.create(run.settings().changed(name="next"), run.folder.parent)
    assert resumed(run, "--step", "2") == 2
    said = told(capfd)[0]["error"]
    assert said["what"] == "The run ink is running." and said["where"] == "--step"
    assert resumed(other, "--queue") == 0
    assert told(capfd)[0] == {"run": str(other.folder), "waits_for": ["ink"]}
    assert watch.place(other) == "It waits for ink to end, then starts." and watch.place(run) == ""


def test_a_run_that_leaves_the_queue_says_how_to_come_back(run, worker, capfd):  # noqa: F811
    worker("log.append(StateChanged(state=State.INTERRUPTED))\n")
    assert resumed(run) == 2
    assert "left the queue before its turn" in capfd.readouterr().err


def test_a_run_that_is_stopped_before_its_first_step_says_how_to_start_it_again(run, worker, capfd):  # noqa: F811
    worker("log.append(StateChanged(state=State.INTERRUPTED, asked=True))\n")
    assert resumed(run) == 2
    said = capfd.readouterr().err
    assert "stopped before its first step" in said and "resume ink" in said and "lost power" not in said


def test_a_run_that_did_all_its_steps_is_not_resumed(run, worker, capfd):  # noqa: F811
    worker(FINISH.replace("True", "False"))
    assert resumed(run) == 0
    assert resumed(run) == 2
    assert "has finished all its steps" in capfd.readouterr().err


def test_the_loss_of_a_run_without_one_is_null_in_json(run, worker, capfd):  # noqa: F811
    """NaN is no JSON: other programs could not read the line."""
    worker(FINISH.replace("0.25", "float('nan')"))
    assert resumed(run) == 0
    assert told(capfd)[0]["final_loss"] is None


def interrupt_when(true) -> None:
    """Presses Ctrl-C as soon as it is so."""

    def press() -> None:
        while not true():
            pass
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_stops_and_keeps(run, worker, capfd):  # noqa: F811
    worker(UNTIL_STOPPED + FINISH)
    before = signal.getsignal(signal.SIGINT)
    interrupt_when(lambda: runner.alive(run) and '"running"' in run.events_file.read_text())
    assert resumed(run) == 0
    result, err = told(capfd)
    assert "Stopping and saving the adapter" in err and result["adapter"].endswith("ink.safetensors")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_second_ctrl_c_leaves_the_worker_to_finish_by_itself(run, worker, capfd):  # noqa: F811
    worker(UNTIL_STOPPED + "while not (Path(sys.argv[1]) / 'go').exists():\n    time.sleep(0.02)\n" + FINISH)
    interrupt_when(lambda: runner.alive(run) and '"running"' in run.events_file.read_text())
    interrupt_when(lambda: control.asked(run, Request.STOP))
    assert resumed(run) == 130
    assert "is still stopping, and saves its adapter" in capfd.readouterr().err
    assert runner.alive(run), "nothing may be lost because somebody was in a hurry"
    (run.folder / "go").touch()
    assert list(runner.follow(run))[-1].kind == "finished"


# The whole way, on a tiny random model


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_base, pictures):  # noqa: F811
    """A run of three steps by the real worker, as ``--json`` tells of it."""
    outputs = tmp_path_factory.mktemp("trained") / "outputs"
    arguments = [
        "train",
        "--data",
        str(pictures),
        "--base",
        str(tiny_base),
        "--name",
        "discs",
        "--outputs",
        str(outputs),
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "lora_studio", *arguments, *(part for one in FEW for part in ("--set", one))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_no_library_fetches_code_or_advises_to(trained):
    """``kernels`` downloads what it runs. bitsandbytes looks for it on some CPUs, and warns of its absence."""
    assert importlib.util.find_spec("kernels") is None
    with pytest.raises(ImportError):
        importlib.import_module("kernels")
    assert not logging.getLogger("bitsandbytes.backends.cpu.ops").isEnabledFor(logging.WARNING)
    assert "Failed to load" not in (Path(trained["run"]) / "worker.log").read_text()


def test_training_leaves_an_adapter_that_another_program_loads(trained):
    from safetensors import safe_open

    assert trained["steps"] == 3 and trained["seconds"] > 0 and 0 < trained["final_loss"] < 100
    with safe_open(trained["adapter"], "pt") as file:
        keys = set(file.keys())
    assert {"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.alpha"} < keys
    assert [Path(path).name for path in trained["previews"]] == ["step-3-0.png"] and all(
        Path(path).is_file() for path in trained["previews"]
    )


def test_a_run_that_lost_its_worker_is_resumed_from_its_checkpoint(trained, capfd):
    """The run of before, as if its worker had been killed after step 2."""
    run = runs.Run(Path(trained["run"]))
    log = run.events_file.read_text().splitlines()
    until = next(index for index, line in enumerate(log) if '"step":3' in line)
    run.events_file.write_text("\n".join(log[:until]) + "\n")
    for path in run.checkpoints.glob("step-3*"):
        path.rename(run.folder / "hidden")
    assert resumed(run) == 0
    result, err = told(capfd)
    assert "from step 2" in err and result["steps"] == 3 and result["adapter"] == trained["adapter"]


def test_pictures_are_drawn_with_an_adapter_and_carry_their_recipe(trained, tiny_base, tmp_path, capfd):  # noqa: F811
    arguments = [
        "generate",
        "--base",
        str(tiny_base),
        "--adapter",
        f"{trained['adapter']}:0.5",
        "--prompt",
        "a disc, blue",
        "--prompt",
        "a cat",
        "--seed",
        "7",
        "--count",
        "2",
        "--steps",
        "2",
        "--width",
        "64",
        "--height",
        "128",
        "--device",
        "cpu",
        "-o",
        str(tmp_path / "pictures"),
        "--json",
    ]
    assert cli.main(arguments) == 0
    result, _ = told(capfd)
    assert [Path(path).name for path in result["pictures"]] == [
        "a-disc-blue-7.png",
        "a-disc-blue-8.png",
        "a-cat-7.png",
        "a-cat-8.png",
    ]
    assert result["adapters"] == [{"file": trained["adapter"], "weight": 0.5}]
    image = Image.open(result["pictures"][1])
    assert image.size == (64, 128)
    assert (
        image.info["parameters"].startswith("a disc, blue <lora:discs:0.5>\nSteps: 2, Sampler: DPM++ 2M")
        and "Seed: 8" in image.info["parameters"]
    )


def test_quickstart_goes_the_whole_way_on_the_starter(tmp_path, monkeypatch, capfd):
    """A quick look at the quick look: two steps instead of its hundreds."""
    quick = tmp_path / "quick.toml"
    few = {"steps": 2, "batch": 2, "preview_steps": 2, "preview_prompts": ["a cat"], "validate_every": 0}
    settings = presets.find(quickstart.PRESET).settings | few
    quick.write_text(tomli_w.dumps({"title": "Quick", "settings": settings}))
    monkeypatch.setattr(quickstart, "PRESET", str(quick))
    assert cli.main(["quickstart", "--outputs", str(tmp_path / "outputs"), "--json"]) == 0
    result, _ = told(capfd)
    assert result["steps"] == 2 and Path(result["adapter"]).is_file() and result["seconds_in_all"] > result["seconds"]
    with Image.open(result["sheet"]) as sheet:
        assert sheet.width > 6 * 128 and sheet.height > 2 * 128


def test_the_sheet_shows_only_subjects_that_were_not_in_the_folder():
    for style in starter.sample_styles():
        subjects = quickstart.unseen(style)
        assert len(subjects) == quickstart.SHOWN
        assert not any(
            subject in path.read_text("utf-8").lower() for subject in subjects for path in style.glob("*.txt")
        )


# Small parts


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.safetensors", "a:0.5", "C:\\a.safetensors"):
        Path(tmp_path, name).touch()
    return lambda name: tmp_path / name


@pytest.mark.parametrize(("text", "file", "weight"), [
    ("a.safetensors", "a.safetensors", 1.0),
    ("a.safetensors:0.8", "a.safetensors", 0.8),
    ("a.safetensors:-1", "a.safetensors", -1.0),
    ("a.safetensors:1e-1", "a.safetensors", 0.1),
    ("a:0.5", "a:0.5", 1.0),
    ("C:\\a.safetensors", "C:\\a.safetensors", 1.0),
    ("C:\\a.safetensors:0.8", "C:\\a.safetensors", 0.8),
])  # fmt: skip
@pytest.mark.skipif(os.name == "nt", reason="names with colons")
def test_an_adapter_and_its_weight_are_told_apart(adapter, text, file, weight):
    assert generate.parse_adapter(text) == (adapter(file), weight)


@pytest.mark.parametrize("text", ["a.safetensors:nan", "a.safetensors:inf"])
def test_a_weight_that_is_no_number_is_refused(adapter, text):
    with pytest.raises(AdapterError, match="weight of a.safetensors"):
        generate.parse_adapter(text)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_times_in_words(seconds, words):
    assert options.duration(seconds) == words


def test_paths_are_made_absolute_and_hub_names_left(tmp_path, monkeypatch):
    """The worker runs in another folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert files.absolute("model") == str(tmp_path / "model")
    (tmp_path / "ink_lightning.safetensors").symlink_to("model")
    assert files.absolute("ink_lightning.safetensors") == str(tmp_path / "ink_lightning.safetensors")
    assert files.absolute("someone/some-model") == "someone/some-model"
    assert files.absolute("starter") == "starter" and files.absolute("") == ""


# Doctor, chromium, test


def test_the_doctor_finds_this_machine_able_to_train(tmp_path, capfd):
    assert cli.main(["doctor", "--outputs", str(tmp_path), "--json"]) == 0
    result, _ = told(capfd)
    assert result["able_to_train"] is True
    assert {"PyTorch", "packages", "device", "bitsandbytes", "outputs", "starter", "chromium"} <= {
        finding["what"] for finding in result["findings"]
    }


@pytest.mark.parametrize(
    ("reason", "state"), [("", "ok"), ("Triton cannot be imported (No module named 'triton')", "warning")]
)
def test_the_doctor_tells_whether_a_card_gets_the_fused_kernels(tmp_path, monkeypatch, reason, state):
    """Without a compiler training would only be slow, and nobody would know why."""
    import torch

    from lora_studio.models.fused import triton_support

    assert list(doctor._kernels(tmp_path)) == [] or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(triton_support, "reason", lambda: reason)
    [finding] = doctor._kernels(tmp_path)
    assert finding.state == state and reason in finding.detail and bool(finding.do) == bool(reason)
    if reason:
        assert (finding.detail, finding.do) == triton_support.fallback(), "as the run says it"


def test_the_doctor_names_what_is_broken_and_the_fix(tmp_path, monkeypatch, capfd):
    (tmp_path / "outputs").write_text("a file")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main(["doctor", "--outputs", str(tmp_path / "outputs")]) == 2
    out = capfd.readouterr().out
    assert "PROBLEM PyTorch: does not start" in out and "PROBLEM outputs:" in out and "--outputs" in out


def test_a_missing_starter_is_a_warning_since_other_models_train(tmp_path, monkeypatch):
    monkeypatch.setattr(starter, "MODEL", tmp_path)
    [finding] = doctor._starter(tmp_path)
    assert finding.state == "warning" and "model_index.json" in finding.detail


def test_the_chromium_that_the_user_names_comes_first(tmp_path, monkeypatch):
    (tmp_path / "mine").touch()
    monkeypatch.setenv(chromium.VARIABLE, str(tmp_path / "mine"))
    assert chromium.require() == str(tmp_path / "mine")


def test_without_any_chromium_there_is_an_error_and_no_silent_skip(monkeypatch):
    monkeypatch.setattr(chromium, "installed", lambda: None)
    monkeypatch.setattr(chromium, "_ways", lambda: [[sys.executable, "-c", "print('no network'); raise SystemExit(1)"]])
    with pytest.raises(MachineError, match="need a Chromium, and none could be installed: no network"):
        chromium.require()


def test_a_chromium_that_a_later_way_brings_is_taken(tmp_path, monkeypatch):
    brought = tmp_path / "chromium"
    monkeypatch.setattr(chromium, "installed", lambda: str(brought) if brought.exists() else None)
    monkeypatch.setattr(chromium, "_ways", lambda: [["false"], [sys.executable, "-c", f"open({str(brought)!r}, 'w')"]])
    assert chromium.require() == str(brought)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["tests/test_errors.py", "-q"], 0), (["tests/test_errors.py", "-q", "-k", "no_such_test"], 5)],
)
def test_the_test_command_passes_arguments_on_and_the_status_back(arguments, status, monkeypatch, capfd):
    monkeypatch.setattr("lora_studio.cli.test._require_packages", lambda: None)
    monkeypatch.setattr(chromium, "require", lambda: "/usr/bin/chromium")
    assert cli.main(["test", *arguments]) == status
