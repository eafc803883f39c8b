"""The house in order: a file imports only from lower floors, and heavy libraries have one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

AGENT = Path(__file__).parent.parent / "agent"

# The ground floor has a step: the nouns lie below what is made of them alone.
FLOORS: dict[str, float] = {
    "agent.model": 0,
    "agent.notify": 0,
    "agent.usb_tree": 0,
    "agent.credentials": 0,
    "agent.clock": 0.5,
    "agent.lanes.wire": 0.5,
    "agent.lanes.confine": 0.5,
    "agent.link.contract": 0.5,
    "agent.kinds": 1,
    "agent.judge": 1,
    "agent.words": 1,
    "agent.profiles": 1,
    "agent.patterns": 0,
    "agent.known_models": 1,
    "agent.known_boxes": 1,
    "agent.settings": 2,
    "agent.lanes": 2,
    "agent.link": 2,
    "agent.store": 2,
    "agent.control": 2,
    "agent.simulator": 2,
    "agent.hands": 2,
    "agent.hands.plan": 2.5,
    "agent.room": 3,
    "agent.hands.main": 3,
    "agent.cli": 4,
    "agent.__main__": 4.5,
}
DOORS = {  # an outside library -> the only places that may import it
    "paho": ("agent.link.client",),
    "cv2": ("agent.kinds.", "agent.simulator"),
    "numpy": ("agent.kinds.", "agent.simulator"),
    "gpiozero": ("agent.hands.",),
    "gpiod": ("agent.hands.",),
    "pyudev": ("agent.kinds.usb",),
    "sqlite3": ("agent.store",),
    "typer": ("agent.cli.",),
    "rich": ("agent.cli.",),
    "reportlab": ("agent.cli.card.fonts",),
}


def name_of(path: Path) -> str:
    parts = path.relative_to(AGENT.parent).with_suffix("").parts
    return ".".join(p for p in parts if p != "__init__")


def floor_of(name: str) -> float:
    while name not in FLOORS:
        if name == "agent":
            return -1
        name = name.rpartition(".")[0]
    return FLOORS[name]


def room_of(name: str) -> str:
    """The folder or file directly below agent/."""
    return ".".join(name.split(".")[:2])


def imports(path: Path) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the import in full"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                target = AGENT.parent / Path(*full.split("."))
                is_module = target.with_suffix(".py").exists() or target.is_dir()
                found.append((full if is_module else node.module, node.lineno))
    return found


FILES = sorted(AGENT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_only_from_lower_floors(path: Path) -> None:
    here = name_of(path)
    for name, line in imports(path):
        if not name.startswith("agent"):
            continue
        same_room = room_of(name) == room_of(here)
        allowed = floor_of(name) < floor_of(here) or (
            same_room and floor_of(name) <= floor_of(here)
        )
        assert allowed, f"{here}:{line} (floor {floor_of(here)}) imports {name}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_outside_libraries_come_through_their_door(path: Path) -> None:
    here = name_of(path)
    for name, line in imports(path):
        doors = DOORS.get(name.partition(".")[0])
        assert doors is None or here.startswith(doors), f"{here}:{line} imports {name}"


def test_every_file_has_a_floor() -> None:
    assert [name_of(p) for p in FILES if floor_of(name_of(p)) < 0 and name_of(p) != "agent"] == []


def test_folders_import_one_way() -> None:
    """No two modules import each other, at whatever distance."""
    graph = {name_of(p): {n for n, _ in imports(p) if n.startswith("agent.")} for p in FILES}

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        for name in graph.get(start, ()):
            if name == goal:
                return True
            if name not in seen:
                seen.add(name)
                if reaches(name, goal, seen):
                    return True
        return False

    assert [name for name in graph if reaches(name, name, set())] == []


@pytest.mark.parametrize("module", ["agent.room", "agent.__main__"])
def test_the_agent_loads_no_heavy_library(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "print([m for m in ('cv2','numpy','gpiozero','gpiod','typer','rich','reportlab')"
        " if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_hides_a_name_of_its_folder(path: Path) -> None:
    """Importing a file sets its name in the folder, over whatever stood there: late, and only in
    the process that imports it."""
    package = path.parent / "__init__.py"
    if path.name == "__init__.py" or not package.exists():
        return
    for node in ast.parse(package.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            assert node.name != path.stem, f"{package}: {node.name} is also {path.name}"
        if isinstance(node, ast.ImportFrom) and node.module != name_of(path):
            bound = {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
            assert bound.get(path.stem, name_of(path)) == name_of(path), f"{package}: {path.name}"
