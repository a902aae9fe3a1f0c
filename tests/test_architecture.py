"""The layout of the house as data, and the rules that follow from it; each rule is shown to be able to fail.

Theory of operation. `violations(path, text)` judges one file by its path in the project and its source, and returns one
sentence for each rule it breaks; it reads no other file and imports nothing, so a broken package is judged as well. The
first test walks all files of the project, the second feeds it bad sources. There is no list of exceptions: a new module
is added to `ROOMS`, and a file that is too long is split.

What counts: a file's lines are all its lines. A function's lines are counted without its docstring, which has room to
say everything, and with everything nested in it. Parameters are counted without `self`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: The rooms from the ground up: a module imports only from its own room and from those above it in this table ...
ROOMS: dict[str, set[str]] = {
    # _shield: what must not be cut short; everything may need it.
    "words": {"_shield", "errors", "_messages", "_settings", "_ports", "_events"},
    # _explain: why nothing is happening, from fields to a sentence.
    # _safety: what makes a server unsafe, for the start and for the doctor.
    "rules": {"_lease", "_retry", "_window", "_explain", "_safety"},
    # _submit and _rows: how one call becomes KEYS and ARGV, and the scripts' rows our values. The store's two hands.
    # _lane: group commit of the worker's verbs. _hints: pub/sub, which only saves waiting.
    # _checks: what is given to submit. _topology: where a key lives.
    "ground": {"_keys", "_scripts", "_store", "_connect", "_submit", "_rows", "_lane", "_hints", "_topology"}
    | {"_checks"},
    # _operators: the operator's half of queue. _desk: its verbs. _survey: a page of threads for people.
    # _life: an open queue, its loops, and how it starts and stops. _scope: shared limits.
    # _relay: previews on their way out. _follow: those of other processes, for the listeners of this one.
    # _around: what a listener opens around the work.
    "flow": {"queue", "_intake", "_due", "_turn", "_keeper", "_worker", "_run", "_echo", "_desk", "_life", "_scope"}
    | {"_relay", "_follow", "_around", "_survey", "_operators"},
    "face": {"__init__"},
    "doors": {"testing", "embedded", "runners", "instrumentation", "integrations", "torture", "cli", "dashboard"}
    | {"__main__"},
}
#: ... except through the seam: the one module below the doors that opens some of them, inside a function.
SEAM = {"queue": {"instrumentation._structlog", "testing._memory"}, "_life": {"embedded"}}
#: Doors that put others together; the rest do not know each other.
ASSEMBLERS = {"cli", "dashboard", "__main__"}
#: Libraries that only some modules import; a package stands for everything below it.
ONLY_IN = {
    "redis": ("_connect", "_scripts", "_hints", "_topology", "testing._memory"),
    "hiredis": ("_scripts", "testing._memory"),
    "fakeredis": ("testing._memory",),
    "time_machine": ("testing._clock",),
    "pytest": ("testing.plugin",),
    "openai": ("runners",),
    "agents": ("runners",),
    "structlog": ("instrumentation._structlog",),
    "prometheus_client": ("instrumentation._prometheus",),
    "opentelemetry": ("instrumentation._otel",),
    "pickle": (),
    "marshal": (),
    "shelve": (),
}
FORBIDDEN_CALLS = {"eval", "exec", "yaml.load"}
FILE_LINES, FUNCTION_LINES, LUA_LINES, PARAMETERS = 400, 40, 60, 8
SIZED = ("streambatch", "tests", "benchmarks", "examples")
LEVEL = {module: level for level, modules in enumerate(ROOMS.values()) for module in modules}
DOORS = list(ROOMS).index("doors")


def name_of(path: str) -> str:
    """Return the module's name inside the package: "runners.chat" for streambatch/runners/chat.py."""
    name = path.removeprefix("streambatch/").removesuffix(".py").replace("/", ".")
    return name if name == "__init__" else name.removesuffix(".__init__")


def imports(tree: ast.Module, path: str) -> Iterator[tuple[ast.stmt, str]]:
    """Yield every import of a file, function-level ones too, as an absolute dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = path.split("/")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node, f"{base}.{alias.name}") for alias in node.names)


def judge_import(path: str, name: str, target: str, *, at_top: bool) -> str | None:
    """Return what is wrong with the import of `target` in the package's module `name`, if anything."""
    top = target.partition(".")[0]
    if top in ONLY_IN and not any(f"{name}.".startswith(f"{place}.") for place in ONLY_IN[top]):
        return f"imports {top}, which only {ONLY_IN[top] or 'nobody'} may"
    if top != "streambatch":
        return None
    inner = target.partition(".")[2]
    room, wanted = name.partition(".")[0], inner.partition(".")[0]
    if wanted not in LEVEL:  # `from streambatch import BatchQueue` means the package's face
        wanted = "__init__"
    if room not in LEVEL or (room == wanted and LEVEL[room] == DOORS):
        return None
    if any(f"{inner}.".startswith(f"{door}.") for door in SEAM.get(name, ())):
        return "opens its seam at import time; the seam is lazy" if at_top else None
    if LEVEL[wanted] > LEVEL[room]:
        return f"imports {target} from a room above its own"
    if LEVEL[wanted] == DOORS and room not in ASSEMBLERS:
        return f"is a door and imports another door, {target}"
    return None


def docstrings(tree: ast.Module) -> dict[ast.AST, ast.Expr]:
    """Return the docstring of the module and of every class and function that has one."""
    with_body = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, with_body) and ast.get_docstring(node) is not None]
    return {node: first for node in nodes if isinstance(first := node.body[0], ast.Expr)}


def sizes(tree: ast.Module, text: str) -> Iterator[str]:
    """Yield what is too long in a Python file."""
    if (lines := len(text.splitlines())) > FILE_LINES:
        yield f"has {lines} lines, more than {FILE_LINES}"
    documented = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name != "Settings":  # whose fields are the one place of defaults
            yield from constructors(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        told = documented.get(node)
        lines = (node.end_lineno or 0) - node.lineno + 1
        lines -= (told.end_lineno or 0) - told.lineno + 1 if told else 0
        if lines > FUNCTION_LINES:
            yield f"{node.name}() has {lines} lines, more than {FUNCTION_LINES}"


def constructors(owner: ast.ClassDef) -> Iterator[str]:
    """Yield whether the constructor of a class takes too much."""
    for node in owner.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            parameters = len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]) - 1
            if parameters > PARAMETERS:
                yield f"the constructor of {owner.name} has {parameters} parameters, more than {PARAMETERS}"


def contents(tree: ast.Module, name: str) -> Iterator[str]:
    """Yield what a module of the package may not say or call."""
    told = {id(docstring.value) for docstring in docstrings(tree).values()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in told:
            said = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            if "redis.call(" in said or "redis.pcall(" in said:
                yield f"line {node.lineno} holds Lua text, which lives in lua/"
            if "sb1:" in said and name != "_keys":
                yield f"line {node.lineno} spells a key, which only _keys.py may"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in FORBIDDEN_CALLS:
            yield f"line {node.lineno} calls {ast.unparse(node.func)}()"


def violations(path: str, text: str) -> list[str]:
    """Return what is wrong with a file, one sentence for each fault; `path` is relative to the project."""
    inside = path.startswith("streambatch/")
    if path.endswith(".lua"):
        lines = len(text.splitlines())
        found = [f"has {lines} lines, more than {LUA_LINES}"] if lines > LUA_LINES else []
        return [*found, *(["is Lua outside streambatch/lua/"] if Path(path).parent != Path("streambatch/lua") else [])]
    if not path.endswith(".py"):
        welcome = path == "streambatch/py.typed" or path.split("/")[1] == "dashboard"  # the page itself
        return ["is an unknown file"] if inside and not welcome else []
    tree = ast.parse(text)
    found = list(sizes(tree, text))
    if inside:
        name = name_of(path)
        if name.partition(".")[0] not in LEVEL:
            found.append("belongs to no room; add it to ROOMS")
        for node, target in imports(tree, path):
            fault = judge_import(path, name, target, at_top=node in tree.body)
            found += [f"line {node.lineno} {fault}"] if fault else []
        found += contents(tree, name)
    return found


def files() -> Iterator[Path]:
    """Yield every file of the project that has a rule."""
    for folder in SIZED:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and (folder == "streambatch" or path.suffix == ".py"):
                yield path


def test_every_file_keeps_the_rules_of_the_house() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {fault}"
        for path in files()
        for fault in violations(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8", errors="replace"))
    ]
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def long_function(lines: int) -> str:
    return "def f():\n" + '    """Say\n\n    a lot.\n    """\n' + "    pass\n" * (lines - 1)


BAD: list[tuple[str, str, str]] = [
    ("streambatch/_new.py", "", "belongs to no room"),
    ("streambatch/notes.txt", "", "unknown file"),
    ("streambatch/_window.py", "from streambatch._store import Store", "from a room above"),
    ("streambatch/_window.py", "from ._store import Store", "from a room above"),
    ("streambatch/_window.py", "from . import _store", "from a room above"),
    (
        "streambatch/_messages.py",
        "def f():\n    import streambatch._turn",
        "line 2 imports streambatch._turn from a room above",
    ),
    ("streambatch/_turn.py", "from streambatch import BatchQueue", "from a room above"),
    ("streambatch/_turn.py", "from streambatch.embedded import launch", "from a room above"),
    ("streambatch/_life.py", "import streambatch.embedded", "the seam is lazy"),
    ("streambatch/queue.py", "def f():\n    import streambatch.runners.chat", "from a room above"),
    ("streambatch/runners/chat.py", "from streambatch.embedded import launch", "another door"),
    ("streambatch/runners/chat.py", "from ..instrumentation import _otel", "another door"),
    ("streambatch/torture/_ground.py", "from streambatch.embedded import EmbeddedServer", "another door"),
    ("streambatch/torture/_ground.py", "import redis", "imports redis"),
    ("streambatch/_turn.py", "import redis.asyncio", "imports redis"),
    ("streambatch/_storehouse.py", "import redis", "imports redis"),
    ("streambatch/queue.py", "def f():\n    from openai import OpenAI", "imports openai"),
    ("streambatch/instrumentation/_otel.py", "import structlog", "imports structlog"),
    ("streambatch/_connect.py", "def f():\n    import fakeredis", "imports fakeredis"),
    ("streambatch/queue.py", "from .testing._memory import Place", "the seam is lazy"),
    ("streambatch/testing/_bench.py", "import pytest", "imports pytest"),
    ("streambatch/instrumentation/_prometheus.py", "from opentelemetry import trace", "imports opentelemetry"),
    ("streambatch/instrumentation/__init__.py", "def f():\n    import prometheus_client", "imports prometheus_client"),
    ("streambatch/_messages.py", "import pickle", "imports pickle"),
    ("streambatch/_messages.py", "x = eval('1')", "calls eval()"),
    ("streambatch/_messages.py", "x = yaml.load(y)", "calls yaml.load()"),
    ("streambatch/_store.py", "x = 'return redis.call(1)'", "holds Lua text"),
    ("streambatch/_store.py", "def f(x): return f'sb1:{x}'", "spells a key"),
    ("streambatch/_store.py", "x = b'sb1:'", "spells a key"),
    ("streambatch/_store.py", "#\n" * 401, "has 401 lines"),
    ("tests/unit/test_x.py", "#\n" * 401, "has 401 lines"),
    ("benchmarks/x.py", long_function(41), "f() has 41 lines"),
    ("streambatch/lua/submit.lua", "--\n" * 61, "has 61 lines"),
    ("streambatch/runners/submit.lua", "", "Lua outside"),
    ("streambatch/_store.py", "class A:\n    def __init__(self, a, b, c, d, e, *, f, g, h, i): ...", "9 parameters"),
]


@pytest.mark.parametrize(("path", "text", "fault"), BAD, ids=str)
def test_each_rule_can_fail(path: str, text: str, fault: str) -> None:
    assert fault in "; ".join(violations(path, text))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("streambatch/_life.py", "def f():\n    from streambatch.embedded import launch"),
        ("streambatch/queue.py", "def f():\n    from streambatch.instrumentation import _structlog as x"),
        ("streambatch/_turn.py", "from streambatch import _store, errors\nfrom ._window import due"),
        ("streambatch/runners/chat.py", "import openai\nfrom ._tools import x\nfrom streambatch import Batch, _ports"),
        ("streambatch/runners/__init__.py", "from . import chat"),
        (
            "streambatch/cli/_doctor.py",
            "from streambatch.embedded import launch\nfrom streambatch.runners.chat import C",
        ),
        ("streambatch/_connect.py", "import redis.asyncio as aio\nfrom redis import exceptions"),
        ("streambatch/_store.py", '"""Keys begin with sb1:."""\n' + long_function(40)),
        ("streambatch/lua/submit.lua", "--\n" * 60),
    ],
    ids=str,
)
def test_what_the_house_allows(path: str, text: str) -> None:
    assert violations(path, text) == []


def test_the_walk_sees_the_package() -> None:
    seen: Callable[[str], bool] = {path.relative_to(ROOT).as_posix() for path in files()}.__contains__
    assert seen("streambatch/py.typed")
    assert seen("tests/test_architecture.py")
