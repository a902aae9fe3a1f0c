"""Messages on their way to a thread of Assistants and back: what a batch becomes, and what its answer is.

Theory of operation
-------------------
Each message of a batch becomes one message of the thread, and carries in its metadata which one it is (``sb_msg``) and
of which batch (``sb_batch``). That is what makes a crash harmless: whoever comes next looks into the thread and knows
what is there. ``sb_msg`` is the stream entry, which nobody can use twice, not the id that the bot gave.

Images go by URL or file id, files by file id as attachments. A file by URL cannot be sent in this protocol; the model
is told that there is one and where, which lets it answer the rest of the burst and say what it could not open.

Authors are named (``Ada: …``) when a thread has had more than one. The thread's state remembers the first, so that the
second is noticed in a later batch; what was said before stays as it was sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from streambatch._messages import Batch, Json, Message, Part

from . import _history as past
from ._threads import listing, mapping

UNSENT = "[The person sent a file by its address, which cannot be opened here: {url}]"


def tag_of(batch_id: str) -> str:
    """The part of a batch's id that is the same for all batches of its thread and namespace."""
    return batch_id.rpartition("-")[2]


def name_of(message: Message) -> str:
    """What a message is called in its metadata."""
    return message.entry or message.id


def authors(batch: Batch) -> tuple[bool, str | bool | None]:
    """Whether to name the authors of *batch*, and what the state remembers: one author, or True for several."""
    known = mapping(batch.state).get("by")
    seen = {message.author for message in batch.messages if message.author}
    if isinstance(known, str):
        seen.add(known)
    if known is True or len(seen) > 1:
        return True, True
    return False, next(iter(seen), None)


def told(batch: Batch, attach: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The messages of *batch* as a request has them, by name; those without content are left out."""
    named, _ = authors(batch)
    found: dict[str, dict[str, Any]] = {}
    for message in batch.messages:
        for said in past.turn_of(replace(batch, messages=(message,)))["in"]:
            metadata = {"sb_batch": batch.id, "sb_msg": name_of(message)}
            author = past.author_name(message.author or "") if named else ""
            found[name_of(message)] = {"role": "user", **_content(said["p"], author, attach), "metadata": metadata}
    return found


def _content(parts: Sequence[Mapping[str, str]], author: str, attach: Sequence[str]) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    files: list[dict[str, Any]] = []
    for part in parts:
        if part["type"] == "text":
            content.append({"type": "text", "text": part["text"]})
        elif part["type"] == "image" and "url" in part:
            content.append({"type": "image_url", "image_url": {"url": part["url"]}})
        elif part["type"] == "image":
            content.append({"type": "image_file", "image_file": {"file_id": part["file_id"]}})
        elif "url" in part:
            content.append({"type": "text", "text": UNSENT.format(url=part["url"])})
        else:
            files.append({"file_id": part["file_id"], "tools": [{"type": name} for name in attach]})
    if not content:
        content.append({"type": "text", "text": "[file]"})  # the protocol has no message without content
    if author and content[0]["type"] == "text":
        content[0]["text"] = f"{author}: {content[0]['text']}"
    elif author:
        content.insert(0, {"type": "text", "text": f"{author}:"})
    alone = len(content) == 1 and content[0]["type"] == "text"
    return {"content": content[0]["text"] if alone else content, **({"attachments": files} if files else {})}


def said(messages: Iterable[Mapping[str, Any]]) -> tuple[str, tuple[Part, ...], bool]:
    """The text of a run's messages, their other parts, and whether the model refused."""
    texts: list[str] = []
    parts: list[Part] = []
    refused = False
    for message in messages:
        for part in map(mapping, listing(message.get("content"))):
            refused = refused or part.get("type") == "refusal"
            text = mapping(part.get("text")).get("value") or part.get("refusal")
            if isinstance(text, str):
                texts.append(text)
            elif (made := _part(part)) is not None:
                parts.append(made)
    return "\n\n".join(texts), tuple(parts), refused


def _part(part: Mapping[str, Any]) -> Part | None:
    file_id, url = mapping(part.get("image_file")).get("file_id"), mapping(part.get("image_url")).get("url")
    if isinstance(file_id, str) and file_id:
        return Part("image", file_id=file_id)
    if isinstance(url, str) and url.startswith(("http://", "https://")):
        return Part("image", url=url)
    return None


def instructions_of(batch: Batch) -> str | None:
    """The instructions in the metadata of the newest message that has some."""
    for message in reversed(batch.messages):
        found: Json = message.metadata.get("instructions")
        if isinstance(found, str) and found.strip():
            return found
    return None
