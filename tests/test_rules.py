"""What ARCHITECTURE.md says of the modules: which may import which, and who touches files."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

[_package] = importlib.util.find_spec("nfsdict").submodule_search_locations
SOURCES = Path(_package)
DOCUMENT = Path(__file__).parents[1] / "ARCHITECTURE.md"
# Each imports only from what comes after it.
_ORDER = """
    __main__ cli cli.completion cli.coordination cli.report cli.doctor cli.edit cli.entries
    cli.listing cli.stats cli.prune cli.transfer cli.upkeep cli.watch cli.stores cli.files
    cli.telling cli.advice cli.signals cli.output demo
    upkeep.report.page upkeep.report.plots upkeep.report.facts upkeep.report
    __init__
    integrations.joblib integrations.optuna integrations.zarr integrations
    doctor.examination doctor.peer doctor.rounds doctor.player doctor.meeting doctor.speed
    doctor.stores doctor.room doctor.clock doctor.mount doctor.semantics doctor.report doctor
    mapping upkeep.methods following once dictlike parts
    upkeep.moving upkeep.transfer upkeep.writing upkeep.reading upkeep.json_lines
    upkeep.archive upkeep.migrate
    upkeep.prune upkeep.limits upkeep.oldest upkeep.prefixed
    coordination.methods aio coordination.async_once coordination.claims
    coordination.memoize coordination.coroutines coordination.off_loop coordination.memo
    coordination.calls
    coordination.encoding coordination.arrays coordination.items
    coordination.compute coordination.live coordination.leases coordination.lease_watch
    coordination.turns coordination.holding coordination
    repack draw watching one_key read_ahead bulk interrupting scan loads taking upkeep.usage
    upkeep.repair upkeep.verify upkeep.stats upkeep.infos upkeep trust kinds
    state news shard_scan in_flight
    index.tables index.writer index.stack index.memory index.shard cache_bound index.pack index
    entries
    storage storage.index_files storage.lease_files storage.mailbox storage.probes
    storage.neighbours storage.spool storage.removal storage.exclusive storage.claims
    storage.shards storage.values storage.reading storage.files storage.refusals storage.coherence
    storage.passing storage.seen storage.handles storage.directories storage.mounted
    storage.mounts storage.file_systems storage.mountstats storage.mountinfo storage.processes
    storage.clock storage.descriptors
    options signed serializers buffers opcodes builtin_serializer content
    first_use arguments views progress parallel background starting undoing batches logs counters
    locks
    errors wording layout
    core _core _pure opening backend
"""
ORDER = _ORDER.split()
# Of ``os`` what everybody may use: it asks nothing of a file.
HARMLESS = {
    *("PathLike", "urandom", "fspath", "fsencode", "fsdecode", "strerror", "stat_result"),
    "statvfs_result",
    *("environ", "name", "register_at_fork", "cpu_count", "sched_getaffinity", "getpid"),
}
# A core, and what it shares with storage; and the command, which has files of its own: standard
# output, a library to store.
EXCEPT = ["_pure", "opening", "demo"]


def modules() -> Iterator[str]:
    for path in SOURCES.rglob("*.py"):
        *packages, module = path.relative_to(SOURCES).with_suffix("").parts
        yield ".".join(packages if packages and module == "__init__" else [*packages, module])


MODULES = sorted(modules())


def tree(module: str) -> ast.Module:
    return ast.parse(source_of(module).read_text())


def source_of(module: str) -> Path:
    path = SOURCES.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported(module: str) -> Iterator[str]:
    """The modules of the package that this one names."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.level:
            names = module.split(".")
            if source_of(module).parent.name == names[-1]:
                names.append("__init__")
            package = names[: -node.level]
            named = ".".join([*package, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                name = f"{named}.{alias.name}".lstrip(".")
                yield name if name in ORDER else named or "__init__"


def file_calls(module: str) -> Iterator[str]:
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "open":
                yield "open"
        elif isinstance(node, ast.Attribute):
            of = ast.unparse(node.value)
            if of in ("os", "shutil", "tempfile") and node.attr not in HARMLESS:
                yield f"{of}.{node.attr}"


def test_every_module_has_its_place():
    assert set(MODULES) <= set(ORDER)
    assert set(ORDER) - set(MODULES) == {"_core"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_lead_downwards(module):
    below = ORDER[ORDER.index(module) + 1 :]
    assert set(imported(module)) <= set(below)


@pytest.mark.parametrize(
    "module",
    [name for name in MODULES if not name.startswith(("storage", "cli")) and name not in EXCEPT],
)
def test_files_are_touched_by_storage_alone(module):
    """Paths are put together elsewhere, too."""
    assert {call for call in file_calls(module) if call != "os.path"} == set()


def test_the_rules_see_what_breaks_them():
    assert "mapping" not in ORDER[ORDER.index("storage") :]
    assert "storage" in set(imported("parts"))
    assert "parts" in set(imported("mapping"))  # within a method
    assert {"os.rename", "os.link"} <= set(file_calls("storage.exclusive"))
    assert "open" in set(file_calls("storage.mountinfo"))


def test_the_document_names_each_module():
    [table] = re.findall(r"## What is where\n(.*?)\n## ", DOCUMENT.read_text(), re.DOTALL)
    named = re.findall(r"`([a-z_0-9.]+)`", table.partition("\n| --- ")[2])
    packages = {"__init__", "coordination", "doctor", "index", "integrations", "upkeep"}
    assert set(ORDER) - packages - {"upkeep.report"} <= set(named)


def test_the_diagrams_have_nothing_that_mermaid_takes_for_something_else():
    """A semicolon ends a statement, and what stands in angle brackets is HTML."""
    diagrams = re.findall(r"```mermaid\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(diagrams) >= 4
    for line in "".join(diagrams).splitlines():
        assert not re.search(r"[;#]|<\w", line), line


def test_the_twins_have_one_stub():
    assert [path.stem for path in SOURCES.glob("*.pyi")] == ["_core"]
