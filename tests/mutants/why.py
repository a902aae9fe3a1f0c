"""What an explanation is, and the reasons that hold for many mutants."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Why:
    """An explanation.

    Attributes:
        script: the file in streambatch/lua/, without its suffix.
        line: the text of the line, as a `Mutant` has it.
        labels: the mutants of that line, each by its label.
        reason: why they change nothing that matters.
    """

    script: str
    line: str
    labels: tuple[str, ...]
    reason: str


BEFORE = (
    "The round before the first takes shared keys for a thread's and ends as lost; its row stands at 0, "
    "which no answer carries."
)
FIRST = "Only the first is looked at."
ODD = "Only entries that are not ours have no size, and a byte more or less of those changes no promise."
MS = "The fraction of a second comes out a millisecond lower at most, which no promise about time can tell."
PAIR = "Both fields are written together and removed together, so that one is there exactly if the other is."
PROBE = (
    "The probe asks whether the command is allowed; which values it is tried with, on keys that it deletes, "
    "is no matter."
)
PAST = "Every moment long past is due alike."
MEMBERS = "A wrong number of members only makes ack read them from the stream, as it does after the group was lost."
UNREAD = "Nobody reads this field of the table."
ONLY = "The name of the group's only consumer, which nobody asks for."
EITHER = "Either of the two alone ends the waiting."
MOMENT = "This is a moment, and none is the first millisecond of 1970."
CAP = "The cap is approximate because that is cheaper; exact is as good."
DUE = "A moment long past is due whatever the delay."
ANEW = "A group that is made anew at each batch hands out the same oldest members; it only costs more."
LOST = "Only a size that was lost is missing, and one token is nothing."
ANY = "It is asked whether there is one at all."
