"""Drafts: one message for an answer, edited until it is whole, also by whoever comes after a crash."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from streambatch import (
    Answered,
    Batch,
    BatchQueue,
    Cancelled,
    Dead,
    DeadLetter,
    Delivered,
    Event,
    Lost,
    Preview,
    Reply,
    Retry,
    Run,
    Started,
    UsageError,
)
from streambatch.integrations import Drafts
from tests.rig.moments import wait_for


class Flood(Exception):
    """As the libraries of platforms have it."""

    retry_after = 3


class Gone(Exception):
    """The chat is not there."""


class Chat:
    """A platform: its messages by id, the calls, and what the next calls meet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.messages: dict[int, str] = {}
        self.calls: list[str] = []
        self.troubles: list[Exception] = []
        self.hold: asyncio.Event | None = None

    async def send(self, thread: str, text: str) -> int:
        self._met(f"send {text}")
        if self.hold is not None:
            await self.hold.wait()
        self.messages[number := 100 + len(self.messages)] = text
        return number

    async def edit(self, thread: str, message: int, text: str) -> bool:
        self._met(f"edit {text}")
        if message not in self.messages:
            return False
        self.messages[message] = text
        return True

    def _met(self, call: str) -> None:
        self.calls.append(call)
        if self.troubles:
            raise self.troubles.pop(0)

    def drafts(self) -> Drafts:
        """A process that writes into it."""
        return Drafts(
            self.send, self.edit, str.split, flood=Flood, refused=Gone, folder=self.folder / "drafts", interval=0
        )

    @property
    def files(self) -> list[str]:
        """What is noted."""
        return sorted(os.listdir(self.folder / "drafts"))


@pytest.fixture
def chat(tmp_path: Path) -> Chat:
    return Chat(tmp_path)


def started(batch: str = "b1", thread: str = "t") -> Started:
    return Started(thread, batch, 1, 1, 2.0)


def answered(batch: str = "b1", *, silent: bool = False) -> Answered:
    return Answered("t", batch, 1, 1, 3.0, silent=silent)


def reply(text: str, batch: str = "b1") -> Reply:
    return Reply(f"r-{batch}", "t", batch, ("m",), text)


async def preview(drafts: Drafts, chat: Chat, text: str, batch: str = "b1") -> None:
    """The Run says something, and it is seen."""
    before = len(chat.calls)
    drafts(Preview("t", batch, text))
    await wait_for(lambda: len(chat.calls) > before, "a preview")


async def test_an_answer_is_sent_once_and_then_edited_and_what_is_longer_follows_with_the_reply(chat: Chat) -> None:
    drafts = chat.drafts()
    drafts(started())
    await preview(drafts, chat, "on")
    await preview(drafts, chat, "ce")
    assert chat.messages == {100: "once"}
    drafts(answered())
    await drafts.deliver(reply("once upon a"))
    assert chat.messages == {100: "once", 101: "upon", 102: "a"}
    assert chat.calls == ["send on", "edit once", "send upon", "send a"]
    drafts(Delivered("t", "r-b1", 1))
    await drafts.aclose()
    assert chat.files == []


@pytest.mark.parametrize("odd", [None, "", "[100,", "{}", "7", "\x00\x00"])
async def test_whoever_comes_after_a_crash_edits_what_is_there_and_sends_the_rest(chat: Chat, odd: str | None) -> None:
    """A delivery that was cut between two pieces, and a Run that begins again. A file with no note in it is none."""
    before = chat.drafts()
    before(started())
    await preview(before, chat, "half")
    before(answered())
    chat.troubles = [Flood(), KeyError("the end of the process")]
    with pytest.raises(Retry):
        await before.deliver(reply("once upon a"))
    with pytest.raises(KeyError):
        await before.deliver(reply("once upon a"))
    await before.deliver(reply("once upon"))
    assert chat.files == ["b1"]
    if odd is not None:
        (chat.folder / "drafts/b1").write_text(odd)
    chat.calls.clear()
    after = chat.drafts()
    await after.deliver(reply("once upon a"))
    if odd is None:
        assert chat.messages == {100: "once", 101: "upon", 102: "a"}
        assert chat.calls == ["edit once", "edit upon", "send a"]
    else:
        assert chat.calls == ["send once", "send upon", "send a"]


async def test_a_kill_or_a_full_disk_in_the_middle_of_a_note_leaves_the_note_before(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the message of that note is not known to whoever comes next."""

    def cut_short(path: Path, text: str, **_: object) -> None:
        path.write_bytes(b"")
        raise OSError("no space left on device")

    before = chat.drafts()
    await before.deliver(reply("once upon"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", cut_short)
        with pytest.raises(OSError, match="no space"):
            await before.deliver(reply("once upon a"))
    chat.calls.clear()
    await chat.drafts().deliver(reply("once upon a"))
    assert chat.calls == ["edit once", "edit upon", "send a"]


async def test_a_flood_in_a_reply_is_a_retry_that_repeats_nothing_and_a_refusal_a_dead_letter(chat: Chat) -> None:
    drafts = chat.drafts()
    await drafts.deliver(reply("once"))
    chat.troubles = [Flood()]
    with pytest.raises(Retry) as told:
        await drafts.deliver(reply("once upon"))
    assert (told.value.after, told.value.count) == (3.0, False)
    await drafts.deliver(reply("once upon"))
    assert chat.calls == ["send once", "send upon", "send upon"]
    chat.troubles = [Gone()]
    with pytest.raises(DeadLetter, match="Gone"):
        await drafts.deliver(reply("once upon a"))


@pytest.mark.parametrize("kind", ["reply", "batch"])
async def test_while_the_dead_letters_are_full_nothing_is_sent_twice(chat: Chat, kind: str) -> None:
    """The reply, or the batch, is tried again once a minute, here or in another process."""
    drafts = chat.drafts()
    drafts(started())
    await drafts.deliver(reply("once upon"))
    drafts(Dead("t", "b1", kind, "why", stored=False))
    drafts(started())
    await drafts.deliver(reply("once upon a"))
    assert chat.calls == ["send once", "send upon", "send a"]
    await drafts.aclose()
    assert chat.files == ["b1"]


async def test_a_message_that_somebody_deleted_is_sent_again(chat: Chat) -> None:
    drafts = chat.drafts()
    drafts(started())
    await preview(drafts, chat, "half")
    chat.messages.clear()
    drafts(answered())
    await drafts.deliver(reply("whole of"))
    assert list(chat.messages.values()) == ["whole", "of"]
    assert chat.calls == ["send half", "edit whole", "send whole", "send of"]


@pytest.mark.parametrize(
    "end",
    [
        Delivered("t", "r-b1", 1),
        Dead("t", "b1", "batch", "why"),
        Dead("t", "b1", "reply", "why"),
        Cancelled("t", "b1", 1, kept=False),
        answered(silent=True),
        started("b2"),
    ],
    ids=lambda event: f"{type(event).__name__} {getattr(event, 'kind', '')}",
)
async def test_the_next_answer_has_a_message_of_its_own(chat: Chat, end: Event) -> None:
    """After whatever ended the one before; and its file is gone."""
    drafts = chat.drafts()
    drafts(started())
    await preview(drafts, chat, "old")
    drafts(end)
    if not isinstance(end, Started):
        await wait_for(lambda: chat.files == [], "the end of its file")
    drafts(started("b2"))
    await preview(drafts, chat, "new", "b2")
    assert chat.messages == {100: "old", 101: "new"}
    await drafts.aclose()
    assert chat.files == ["b2"]


@pytest.mark.parametrize("end", [Cancelled("t", "b1", 1, kept=True), answered()], ids=["kept", "answered"])
async def test_what_is_delivered_after_the_end_of_its_run_goes_into_the_same_message(chat: Chat, end: Event) -> None:
    drafts = chat.drafts()
    drafts(started())
    await preview(drafts, chat, "half")
    drafts(end)
    await drafts.deliver(reply("whole"))
    assert chat.messages == {100: "whole"}


async def test_a_run_that_another_process_took_over_keeps_its_file_for_it(chat: Chat) -> None:
    """And its previews, which come here too with hear_previews, are not shown by two."""
    mine, others = chat.drafts(), chat.drafts()
    mine(started())
    mine(Preview("t", "b2", "of somebody else"))
    await preview(mine, chat, "half")
    await wait_for(lambda: "b1" in chat.files, "its note")
    mine(Lost("t", "b1"))
    mine(Preview("t", "b1", "more of it"))
    mine(Preview("u", "b9", "of somebody else"))
    others(started())
    await preview(others, chat, "again")
    assert chat.messages == {100: "again"}
    await mine.aclose()
    assert chat.files == ["b1"]
    assert chat.calls == ["send half", "edit again"]


async def test_a_reply_that_comes_back_is_written_into_what_the_other_process_left(chat: Chat) -> None:
    """It took over, sent a piece more, and died before that was noted in the queue."""
    mine, others = chat.drafts(), chat.drafts()
    mine(started())
    await preview(mine, chat, "half")
    await wait_for(lambda: "b1" in chat.files, "its note")
    mine(Lost("t", "b1"))
    await others.deliver(reply("whole story"))
    await others.aclose()
    await mine.deliver(reply("whole story"))
    await mine.aclose()
    assert chat.messages == {100: "whole", 101: "story"}
    assert chat.calls == ["send half", "edit whole", "send story", "edit whole", "edit story"]


async def test_a_reply_waits_for_the_preview_that_is_on_its_way_and_goes_into_its_message(chat: Chat) -> None:
    drafts, chat.hold = chat.drafts(), asyncio.Event()
    drafts(started())
    await preview(drafts, chat, "half")
    drafts(answered())
    delivering = asyncio.create_task(drafts.deliver(reply("whole")))
    await asyncio.sleep(0)
    chat.hold.set()
    await delivering
    assert chat.messages == {100: "whole"}


async def test_a_message_that_is_sent_while_its_answer_is_forgotten_belongs_to_no_other(chat: Chat) -> None:
    """The Run is cancelled while its first text is on its way: the next answer does not go into that message."""
    drafts, chat.hold = chat.drafts(), asyncio.Event()
    drafts(started())
    await preview(drafts, chat, "old")
    drafts(Cancelled("t", "b1", 1, kept=False))
    drafts(started("b2"))
    chat.hold.set()
    await preview(drafts, chat, "new", "b2")
    await wait_for(lambda: len(chat.messages) == 2, "the next answer")
    drafts(answered("b2"))
    await drafts.deliver(reply("new", "b2"))
    assert chat.messages == {100: "old", 101: "new"}
    await drafts.aclose()
    assert chat.files == ["b2"]


async def test_two_queues_with_a_thread_of_one_name_have_a_drafts_each_and_may_share_the_folder(chat: Chat) -> None:
    one, two = chat.drafts(), chat.drafts()
    one(started("b1"))
    await preview(one, chat, "mine", "b1")
    two(started("b2"))
    await preview(two, chat, "yours", "b2")
    one(answered("b1"))
    await one.deliver(reply("mine indeed", "b1"))
    two(answered("b2"))
    await two.deliver(reply("yours indeed", "b2"))
    one(Delivered("t", "r-b1", 1))
    assert chat.messages == {100: "mine", 101: "yours", 102: "indeed", 103: "indeed"}
    assert chat.calls == ["send mine", "send yours", "send indeed", "send indeed"]
    await one.aclose()
    assert chat.files == ["b2"]


async def test_files_that_nobody_forgot_are_removed_after_a_week(chat: Chat) -> None:
    """A reply waits for its platform for a week at most, so younger ones are needed."""
    folder = chat.folder / "drafts"
    folder.mkdir()
    for name, days in (("young", 6.9), ("old", 7.1)):
        (folder / name).write_text("[1]")
        written = time.time() - days * 86_400
        os.utime(folder / name, times=(written, written))
    chat.drafts()
    assert chat.files == ["young"]


def test_a_wrong_interval_is_refused(chat: Chat) -> None:
    with pytest.raises(UsageError, match="interval"):
        Drafts(chat.send, chat.edit, str.split, folder=chat.folder, interval=-1)


@pytest.fixture
def drafts(chat: Chat) -> Drafts:
    return chat.drafts()


async def test_with_a_queue_the_answer_is_one_message(chat: Chat, drafts: Drafts, url: str, namespace: str) -> None:
    """Two answers after one another; nothing is noted any more when the queue has been left."""

    async def answer(batch: Batch, run: Run) -> str:
        before = len(chat.calls)
        run.emit(f"{batch.text}-half")
        await wait_for(lambda: len(chat.calls) > before, "the preview")
        return f"{batch.text}-whole indeed"

    queue = BatchQueue(
        url, namespace=namespace, runner=answer, deliver=drafts.deliver, listeners=[drafts], log=False, debounce=0
    )
    async with queue:
        for n, text in enumerate(("a", "b"), 1):
            await queue.submit("t", text)
            await wait_for(lambda n=n: len(chat.messages) == 2 * n, "the delivery")
    assert list(chat.messages.values()) == ["a-whole", "indeed", "b-whole", "indeed"]
    assert chat.files == []


@pytest.mark.parametrize("said", [None, "", " \n"])
async def test_an_answer_with_nothing_in_it_leaves_what_the_previews_made(
    chat: Chat, drafts: Drafts, url: str, namespace: str, said: str | None
) -> None:
    """No reply, an empty one, and one of white space: no empty message is sent, and the next answer has its own."""

    async def answer(batch: Batch, run: Run) -> str | None:
        before = len(chat.calls)
        run.emit(f"{batch.text}-half")
        await wait_for(lambda: len(chat.calls) > before, "the preview")
        return said if batch.text == "a" else "whole"

    queue = BatchQueue(
        url, namespace=namespace, runner=answer, deliver=drafts.deliver, listeners=[drafts], log=False, debounce=0
    )
    async with queue:
        for text in ("a", "b"):
            await (await queue.submit("t", text)).reply(20)
        await wait_for(lambda: chat.messages.get(101) == "whole", "the next answer")
    assert chat.messages == {100: "a-half", 101: "whole"}
    assert chat.calls == ["send a-half", "send b-half", "edit whole"]
    assert chat.files == []
