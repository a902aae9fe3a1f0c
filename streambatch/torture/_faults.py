"""Every fault there is, by name: what the proxy does to bytes, and what is done to processes.

The errors are the words with which real servers refuse a call for now; the proxy answers with them in the server's
place, so the call is not executed. How long a fault lasts is drawn from the seed (`_play`).
"""

from __future__ import annotations

#: What is answered in place of the server, which never sees the call.
ERRORS: dict[str, bytes] = {
    "answer-LOADING": b"-LOADING Redis is loading the dataset in memory\r\n",
    "answer-BUSY": b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n",
    "answer-READONLY": b"-READONLY You can't write against a read only replica.\r\n",
    "answer-OOM": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "answer-NOSCRIPT": b"-NOSCRIPT No matching script. Please use EVAL.\r\n",
    "answer-NOREPLICAS": b"-NOREPLICAS Not enough good replicas to write.\r\n",
    "answer-MISCONF": b"-MISCONF Redis is configured to save RDB snapshots, but is unable to persist on disk.\r\n",
    "answer-MASTERDOWN": b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
    "answer-CLUSTERDOWN": b"-CLUSTERDOWN The cluster is down\r\n",
    "answer-TRYAGAIN": b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
}
FULL = b"-ERR max number of clients reached\r\n"

#: Done once, to the next call that comes (`max-clients`: to the next connection).
ONCE = (
    "reset",  # both ends of a connection get a RST
    "lost-request",  # a call and all that follows on its connection never arrive, and nobody is told
    "late-request",  # the same, and long after its sender gave up it is executed
    "lost-reply",  # a call is executed, and its answer and all that would follow never come
    "cut-request",  # the server gets half of a call, then the connection ends
    "cut-reply",  # half of an answer comes, then the connection ends
    "merged",  # answers are held back and come together, in one piece
    "max-clients",  # a connection is greeted with an error and closed
    *ERRORS,
)
#: Goes on for some time, for all connections of one process.
LASTING = (
    "black-hole",  # every byte is taken, nothing is answered, nothing is closed; new connections too (half-open)
    "refused",  # connections are reset, and new ones refused
    "latency",  # every answer is late
    "split",  # everything comes in pieces of a few bytes
)
#: Done to processes.
PROCESS = (
    "kill",  # SIGKILL at a random moment
    "kill-at-begin",  # SIGKILL at the first line of a Run
    "kill-at-end",  # at its last line: answered, not committed
    "kill-at-answered",  # right after the commit
    "kill-at-deliver",  # at the first line of the deliver callback
    "kill-at-handed",  # at its last: handed over, and the queue does not know it
    "kill-submitter",  # SIGKILL of a process that submits
    "freeze",  # SIGSTOP for longer than a lease
    "block",  # the event loop stands still for longer than a lease
    "restart",  # SIGTERM: an orderly end, and another process
)
#: Done to the server, if it is ours to harm.
SERVER = ("kill-server", "freeze-server")
POINTS = tuple(kind.removeprefix("kill-at-") for kind in PROCESS if kind.startswith("kill-at-"))
ALL = (*ONCE, *LASTING, *PROCESS, *SERVER)
