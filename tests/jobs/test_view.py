"""The fold: from any log the same picture, also across a resume."""

import math

from lora_studio import events as e
from lora_studio.events import State
from lora_studio.jobs import view
from lora_studio.jobs.eventlog import EventLog
from lora_studio.jobs.view import Follower, RunView

STARTED = e.Started(total_steps=10, images=4, device="CPU", precision="fp32", parameters=100, modules=2)


def step(number: int, loss: float = 0.5) -> e.StepDone:
    return e.StepDone(step=number, loss=loss, learning_rate=1e-4)


def folded(*events: e.Event) -> RunView:
    seen = RunView()
    for event in events:
        seen.apply(event)
    return seen


def test_a_run_from_start_to_end():
    seen = folded(
        e.StateChanged(state=State.PREPARING),
        e.Preparing(stage="latents", done=1, total=4),
        e.BaseLoaded(name="ink", family="SDXL", predicts="Velocity (v)", reason="the file's mark v_pred"),
        STARTED,
        e.StateChanged(state=State.RUNNING),
        step(1),
        step(2),
        e.Validated(step=2, loss=0.3),
        e.PreviewReady(step=2, index=0, prompt="a cat", seed=1, path="previews/step-2-0.png"),
        e.CheckpointSaved(step=2, path="checkpoints/step-2"),
        e.Warned(what="A picture is small."),
    )
    assert seen.base.sentence == "Base model ink, SDXL. It predicts: Velocity (v) – the file's mark v_pred."
    assert seen.state is State.RUNNING and seen.last.step == 2 and seen.progress == 0.2
    assert (len(seen.validations), len(seen.previews), len(seen.checkpoints), len(seen.warnings)) == (1, 1, 1, 1)
    seen.apply(e.Finished(adapter="ink.safetensors", steps=10, seconds=5.0, final_loss=0.1))
    assert seen.state is State.FINISHED and seen.finished.adapter == "ink.safetensors"


def test_progress_is_zero_before_anything_is_known():
    assert RunView().progress == 0.0
    assert folded(step(3)).progress == 0.0


def test_a_resumed_run_forgets_the_steps_after_its_checkpoint():
    """Otherwise the curve would run back and show every step twice."""
    seen = folded(
        STARTED,
        step(1),
        step(2),
        step(3),
        e.Validated(step=3, loss=0.3),
        e.StateChanged(state=State.INTERRUPTED),
        STARTED.model_copy(update={"first_step": 2}),
        step(3, loss=0.25),
    )
    assert [one.step for one in seen.steps] == [1, 2, 3]
    assert seen.last.loss == 0.25 and seen.validations == []


def test_a_resumed_run_is_no_longer_failed_or_finished():
    seen = folded(STARTED, e.Failed(what="The disk is full."), STARTED)
    assert seen.failed is None
    stopped = folded(
        STARTED, e.Finished(adapter="ink.safetensors", steps=3, seconds=1.0, final_loss=0.1, stopped=True), STARTED
    )
    assert stopped.finished is None


def test_rolling_back_forgets_what_came_after_and_says_so():
    seen = folded(
        STARTED,
        step(1),
        step(2),
        step(3),
        e.RolledBack(step=1, failed_step=4, factor=0.5, what="Step 4 gave no number."),
    )
    assert [one.step for one in seen.steps] == [1]
    assert [warning.what for warning in seen.warnings] == ["Step 4 gave no number."]


def test_the_follower_folds_only_what_is_new_and_agrees_with_a_fresh_fold(run):
    log, follower = EventLog(run.events_file), Follower(run)
    for number in range(1, 6):
        log.append(step(number))
        assert follower.update().last.step == number
    assert follower.view.steps == view.fold(run).steps


def test_a_loss_that_is_not_a_number_comes_through_the_log(run):
    """Plain JSON has no NaN: the line would be torn out of the log, and with it the reason for a failure."""
    EventLog(run.events_file).append(step(1, loss=math.nan))
    assert math.isnan(view.fold(run).last.loss)


def test_a_very_long_run_is_held_in_bounds_with_its_beginning_and_its_latest_steps():
    """A page that draws a hundred thousand steps every two seconds leaves the training no time."""
    seen = folded(STARTED, *(step(number) for number in range(1, 40_001)))
    numbers = [one.step for one in seen.steps]
    assert len(numbers) <= view.MOST_STEPS and numbers == sorted(set(numbers))
    assert numbers[-view.RECENT :] == list(range(40_001 - view.RECENT, 40_001)) and numbers[0] <= 16
    assert max(after - before for before, after in zip(numbers, numbers[1:], strict=False)) <= 16


def test_a_log_of_many_pieces_is_folded_whole(run):
    """It is read a megabyte at a time; a line that lies over two of them must not be lost."""
    log, count = run.events_file, 15_000
    log.write_text(
        "".join(step(number).line() + "\n" for number in range(1, count + 1))
        + "rubbish\n" * 200_000
        + step(count + 1).line()
        + "\n"
    )
    assert log.stat().st_size > 3 << 20
    assert view.fold(run).last.step == count + 1


def test_a_run_that_waited_and_ended_left_the_queue_and_one_that_had_begun_vanished():
    """What the user took out of the queue must not look like an accident, nor an accident like something that the user
    did.
    """
    queued, gone = e.StateChanged(state=State.QUEUED), e.StateChanged(state=State.INTERRUPTED)
    assert folded(queued, gone).left_queue
    assert not folded(queued, STARTED, gone).left_queue and not folded(queued, gone, queued).left_queue
    early = e.StateChanged(state=State.INTERRUPTED, asked=True)
    seen = folded(queued, STARTED, early)
    assert seen.stopped_early and seen.never_began and not seen.left_queue
    assert not folded(queued, STARTED, early, queued).never_began and not folded(queued, STARTED, gone).never_began
