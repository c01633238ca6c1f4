"""What holds for every handler of the page."""

import inspect
import json
import threading

import gradio as gr
import gradio.utils
import httpx
import pytest

from lora_studio.ui import handlers, studio
from lora_studio.ui.studio import free_port
from tests.ui.played import until


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return studio.build(tmp_path_factory.mktemp("outputs"))


def test_those_without_a_sign_of_progress_mark_nothing(page):
    """Each handler tells all its outputs twice that it works: hundreds of updates while the page loads."""
    quiet = [one for one in page.get_config_file()["dependencies"] if one["show_progress"] == "hidden"]
    assert len(quiet) > 100 and all(one["show_progress_on"] == [] for one in quiet)


def test_all_that_report_in_steps_end_with_nothing(page):
    steps = [one.fn for one in page.fns.values() if one.fn and inspect.isgeneratorfunction(one.fn)]
    assert len(steps) > 15 and all(
        "_ending_with_nothing" in vars(one)["__wrapped__"].__code__.co_qualname for one in steps
    )


def test_every_press_in_a_list_counts(page):
    """A second press that comes quickly does nothing, and nobody says so: a run is not deleted, a state not kept, and
    an address that was entered by Back shows nothing.
    """
    config = page.get_config_file()
    lists = {part["id"]: part["props"].get("elem_id") for part in config["components"] if part["type"] == "html"}
    pressed = [
        (lists[part], one["trigger_mode"])
        for one in config["dependencies"]
        for part, _ in one["targets"]
        if part in lists and one["backend_fn"] and not one["queue"]
    ]
    assert len(pressed) > 30 and {part for part, mode in pressed if mode != "multiple"} == {"guide", "send-pressed"}


def test_the_last_choice_in_each_field_counts(page):
    """A preset or an adapter that is chosen while another is being answered is ignored: the field shows one, and what
    depends on it another.
    """
    config = page.get_config_file()
    fields = ("dropdown", "number", "radio", "textbox")
    typed = {part["id"] for part in config["components"] if part["type"] in fields}
    told = [
        one["trigger_mode"]
        for one in config["dependencies"]
        for part, event in one["targets"]
        if part in typed and event in ("input", "select", "blur") and one["backend_fn"] and not one["queue"]
    ]
    assert len(told) > 20 and "once" not in told


def test_a_press_on_start_first_takes_the_form_as_it_is(page):
    """What she types after she pressed Start, for the next run, gets into this one while something else is asked."""
    config = page.get_config_file()
    (start,) = (part["id"] for part in config["components"] if part["props"].get("elem_id") == "start")
    first = next(one for one in config["dependencies"] if [start, "click"] in map(list, one["targets"]))
    assert not first["backend_fn"] and "fields" in first["js"]


def answers(step_by_step, count):
    """What the page gets of a handler with ``count`` outputs, the answer at its end last."""
    with gr.Blocks() as blocks:
        shown = [gr.Textbox() for _ in range(count)]
        gr.Button().click(step_by_step, None, shown, api_name="do")
    handlers.prepare(blocks)
    blocks.launch(
        server_name="127.0.0.1", server_port=free_port("127.0.0.1", 8900), prevent_thread_lock=True, quiet=True
    )
    try:
        address = f"{blocks.local_url}gradio_api/call/do"
        asked = httpx.post(address, json={"data": []}).json()["event_id"]
        lines = httpx.get(f"{address}/{asked}", timeout=60).text.splitlines()
    finally:
        blocks.close()
    return [line for line in lines if line.startswith("data: ")]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_handler_that_ends_changes_nothing_any_more(steps, count):
    """Thumbnails that were made for another page of pictures empty the list."""

    def step_by_step():
        for step in range(steps):
            yield f"step {step}" if count == 1 else [f"step {step}"] * count

    *_, end = answers(step_by_step, count)
    assert "update" in end and "null" not in end and "step" not in end


def test_a_handler_keeps_its_event():
    class Page:
        def steps(self, text: str, event: gr.EventData):
            yield f"{text} {event.target}"

    ending = handlers._ending_with_nothing(Page().steps, 1)
    assert list(inspect.signature(ending).parameters) == ["text", "event"]
    assert ending.__annotations__["event"] is gr.EventData
    assert list(ending("a", gr.EventData(7, {}))) == ["a 7", gr.skip()]


def test_the_stream_of_answers_stays_open(monkeypatch):
    """A press at the moment at which the stream closes is answered with the next press, if there is one."""
    monkeypatch.setattr(handlers, "_SIGN", 0.2)
    blocks = served()
    try:
        told = []
        with stream_of(blocks) as stream:
            for line in stream.iter_lines():
                told += [json.loads(line.removeprefix("data: "))["msg"]] if line.startswith("data: ") else []
                if told.count("process_generating") == 3:
                    break
        assert "process_completed" not in told and "close_stream" not in told
        until(lambda: not any(blocks._queue.active_jobs))
    finally:
        blocks.close()


def served():
    """A page that does nothing but stay."""
    with gr.Blocks() as blocks:
        gr.Button()
    handlers.prepare(blocks)
    port = free_port("127.0.0.1", 8900)
    blocks.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True)
    return blocks


def stream_of(blocks):
    """The stream in which such a page gets its answers."""
    (stay,) = blocks.get_config_file()["dependencies"]
    address, body = f"{blocks.local_url}gradio_api/queue", {"data": [], "fn_index": stay["id"], "session_hash": "a"}
    assert httpx.post(f"{address}/join", json=body).status_code == 200
    return httpx.stream("GET", f"{address}/data", params={"session_hash": "a"}, timeout=60)


def test_an_open_page_does_not_keep_the_studio_from_ending(monkeypatch):
    """Ctrl+C seems to do nothing: the server waits five seconds for a stream that never ends, and gives up."""
    monkeypatch.setattr(handlers, "_ending", threading.Event())
    blocks = served()
    with stream_of(blocks) as stream:
        assert "process_starts" in next(line for line in stream.iter_lines() if "process_starts" in line)
        handlers.end(blocks)
        assert not blocks.server.thread.is_alive()


def test_a_step_replaces_what_it_changes(page):
    """A step that comes before the page has shown the last one takes back what that one sets: a timer stays off."""
    before = {"__type__": "update", "active": True}
    assert gradio.utils.diff(before, {"__type__": "update"}) == [("replace", [], {"__type__": "update"})]
    assert gradio.utils.diff(before, dict(before)) == [] and gradio.utils.diff("a", "b") == [("replace", [], "b")]
