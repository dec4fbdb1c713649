# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of the tree: who imports what, who may do what, and what may be in it at all."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, find_blender_pythons

HEADER = "# SPDX-License-Identifier: GPL-3.0-or-later"
LARGEST_FILE = 20 * 1024 * 1024  # bytes
OURS = {"koshi_backend", "bridge_server"}

# Imports the modules of the third argument while everything but the standard library and the packages in the
# second argument is refused; prints what was asked for and refused.
IMPORT_PROBE = """
import json, sys
root, allowed, modules = sys.argv[1], set(json.loads(sys.argv[2])), json.loads(sys.argv[3])
asked = []

class Guard:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names:
            if top != "org":  # the standard library's copy module asks for Jython's org.python
                asked.append(name)
            raise ModuleNotFoundError(f"{name} may not be imported here", name=name)

sys.path.insert(0, root)
sys.meta_path.insert(0, Guard())
for module in modules:
    __import__(module)
print(json.dumps(asked))
"""


def tree_files() -> list[Path]:
    """Every file that is, or is about to be, part of the project."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in files if path.is_file() and not path.is_symlink()]


FILES = tree_files()
PYTHON_FILES = [path for path in FILES if path.suffix == ".py"]


def name_of(path: Path) -> str:
    """The path inside the tree, with slashes."""
    return path.relative_to(ROOT).as_posix()


def part_files(*parts: str) -> list[Path]:
    """The Python files of some of the tree's top folders or files."""
    return [path for path in PYTHON_FILES if name_of(path).split("/")[0] in parts]


@functools.cache
def parsed(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=name_of(path))


# ---- what is in the tree


def test_every_python_file_has_the_licence_header() -> None:
    without = []
    for path in PYTHON_FILES:
        lines = path.read_text(encoding="utf-8").splitlines()
        first = (
            lines[1] if lines and lines[0].startswith("#!") and len(lines) > 1 else lines[0] if lines else ""
        )
        if first != HEADER:
            without.append(name_of(path))
    assert not without


def test_no_file_is_too_large() -> None:
    assert not [name_of(path) for path in FILES if path.stat().st_size > LARGEST_FILE]


def test_no_path_of_a_private_machine() -> None:
    private = [f"/{folder}/" for folder in ("root", "home", "Users")]
    found = []
    for path in FILES:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # pictures and weights
        found += [f"{name_of(path)}: {word}" for word in private if word in text]
    assert not found


def test_no_picture_names_a_temporary_folder() -> None:
    """Blender notes in its renders where the scene lay; examples/strip_notes.py takes that out."""
    folders = (b"/tmp/", b"/var/folders/", b"\\Temp\\", b"\\AppData\\")
    kinds = {".png", ".jpg", ".exr", ".mp4", ".gif", ".webp"}
    pictures = [path for path in FILES if path.suffix in kinds]
    assert len(pictures) > 30
    assert not [name_of(path) for path in pictures if any(folder in path.read_bytes() for folder in folders)]


# ---- who imports what (DESIGN section 1)


def refused_imports(python: str, modules: list[str], allowed: set[str]) -> list[str]:
    """What importing `modules` asks for beyond the standard library and `allowed`, in its own process."""
    arguments = [str(ROOT), json.dumps(sorted(allowed)), json.dumps(modules)]
    command = [python, "-I", "-S", "-c", IMPORT_PROBE, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def pythons() -> dict[str, str]:
    """The tests' own Python and the ones inside Blender."""
    inside = {f"Blender {version}": str(path) for version, path in find_blender_pythons().items()}
    return {"backend": sys.executable, **inside}


@pytest.mark.parametrize("python", pythons().values(), ids=pythons().keys())
@pytest.mark.parametrize(
    "module",
    [
        "bridge_server.protocol",
        "bridge_server.client",
        "koshi_backend",
        "koshi_backend.schedules",
        "koshi_backend.easing",
        "koshi_backend.errors",
    ],
)
def test_needs_the_standard_library_only(python: str, module: str) -> None:
    assert refused_imports(python, [module], OURS) == []


def imported_by(code: str) -> set[str]:
    """The top packages that are loaded after running `code` in a process of its own."""
    report = "\nimport sys, json; print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    command = [sys.executable, "-c", code + report]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("code", "without"),
    [
        (
            "import koshi_backend",
            {"torch", "numpy", "pydantic", "transformers", "cv2", "PIL", "bridge_server"},
        ),
        ("import koshi_backend.shot", {"torch", "transformers", "cv2"}),
        ("import koshi_backend.store", {"torch", "transformers", "cv2"}),
        ("import bridge_server.server", {"torch", "transformers", "diffusers", "cv2", "bpy"}),
        ("import koshi_backend.chain", {"diffusers", "bpy", "bridge_server"}),
    ],
)
def test_import_stays_light(code: str, without: set[str]) -> None:
    assert not imported_by(code) & without


def test_help_is_instant() -> None:
    resource = pytest.importorskip("resource", reason="Windows does not tell")

    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    before = used()
    command = [sys.executable, "-m", "koshi_backend", "--help"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "animate" in ran.stdout
    assert used() - before < 0.5  # of a processor: .1 to .2


def test_help_loads_nothing_heavy() -> None:
    code = """
from koshi_backend.cli import main
try:
    main(["--help"])
except SystemExit as stop:
    assert not stop.code, stop.code
"""
    assert not imported_by(code) & {"torch", "pydantic", "numpy", "transformers", "cv2", "PIL", "av"}


BLENDERS_OWN = {
    "numpy", "bpy", "mathutils", "bpy_extras", "addon_utils", "gpu", "gpu_extras", "blf", "bl_operators", "bl_ui",
}  # fmt: skip
REACHABLE = {
    "bridge_server",
    "bridge_server.client",
    "bridge_server.protocol",
    "bridge_server.setup",
    "bridge_server.setup.place",
    "bridge_server.setup.requirements",
    "koshi_backend.schedules",
    "koshi_backend.easing",
    "koshi_backend.paths",
    "koshi_backend.seeds",
    "koshi_backend.errors",
    "koshi_backend.models.registry",  # standard library only: one list of models for both sides
    "koshi_backend.models.hub_cache",  # the same: where they are
    "panels",
    "operators",
}


def absolute_module(path: Path, node: ast.ImportFrom) -> str:
    """The module an import statement of the extension names, counted from the tree's root."""
    package = list(path.relative_to(ROOT).parent.parts)
    kept = package[: len(package) - (node.level - 1)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def extension_imports(path: Path) -> list[tuple[str, bool]]:
    """Every module a file imports, and whether it names the project's own modules relatively."""
    found: list[tuple[str, bool]] = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, False) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.append((node.module or "", False))
        elif isinstance(node, ast.ImportFrom):
            module = absolute_module(path, node)
            # `from ..bridge_server import client` imports the module bridge_server.client
            whole = module in ("", "bridge_server", "koshi_backend")
            found += (
                [(f"{module}.{alias.name}".lstrip("."), True) for alias in node.names]
                if whole
                else [(module, True)]
            )
    return found


def may_import(module: str, relative: bool) -> bool:
    """Whether the extension's side may import this."""
    if relative and module == "__package__":  # the extension's name, which Blender chooses
        return True
    if not relative:
        top = module.partition(".")[0]
        return top in BLENDERS_OWN or (top in sys.stdlib_module_names and top not in OURS)
    return module in REACHABLE or module.partition(".")[0] in ("panels", "operators")


def test_the_extension_imports_only_what_blender_has() -> None:
    wrong = []
    for path in part_files("panels", "operators", "__init__.py"):
        wrong += [
            f"{name_of(path)}: {module}"
            for module, relative in extension_imports(path)
            if not may_import(module, relative)
        ]
    assert not wrong


def test_packages_import_themselves_relatively() -> None:
    """An absolute import of the own package would fail inside Blender, where it is a sub-package."""
    wrong = []
    for path in part_files(*OURS):
        package = name_of(path).split("/")[0]
        for node in ast.walk(parsed(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            wrong += [f"{name_of(path)}: {name}" for name in names if name.partition(".")[0] == package]
    assert not wrong


def test_the_backend_knows_no_blender_and_no_sockets() -> None:
    wrong = []
    for path in part_files("koshi_backend"):
        for node in ast.walk(parsed(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            tops = {name.partition(".")[0] for name in names}
            wrong += [
                f"{name_of(path)}: {top}"
                for top in tops & {"bpy", "mathutils", "socket", "socketserver", "diffusers", "peft"}
            ]
            if "bridge_server" in tops and path.name != "cli.py":  # `koshi serve` starts the server
                wrong.append(f"{name_of(path)}: bridge_server")
    assert not wrong


# ---- who may do what

SENSITIVE_MODULES = {
    "subprocess",
    "socket",
    "socketserver",
    "pickle",
    "marshal",
    "shelve",
    "urllib",
    "http",
    "ctypes",
}
SENSITIVE_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "torch.load",
    "asyncio.create_subprocess_exec",
    "asyncio.create_subprocess_shell",
    "asyncio.start_server",
    "asyncio.start_unix_server",
    "asyncio.open_connection",
    "asyncio.open_unix_connection",
}

# Every use in the parts that run inside Blender or listen on a socket, with its reason.
ALLOWED: dict[tuple[str, str], str] = {
    ("bridge_server/client.py", "socket"): "talks to the backend over loopback",
    ("bridge_server/dial.py", "socket"): "opens and authenticates that connection",
    ("bridge_server/launcher.py", "subprocess"): "starts the backend in its own Python, never a shell",
    ("bridge_server/protocol.py", "ctypes"): "Windows has no other way to ask whether a process is alive",
    ("bridge_server/server.py", "socket"): "listens on loopback, or where its user asked it to by name",
    ("bridge_server/server.py", "asyncio.start_server"): "the same",
    ("bridge_server/server.py", "asyncio.start_unix_server"): "the same, as a Unix socket",
    (
        "bridge_server/supervisor.py",
        "asyncio.create_subprocess_exec",
    ): "starts the worker in the server's Python",
    ("bridge_server/setup/pythons.py", "subprocess"): "asks each Python that it finds for its version",
    ("bridge_server/setup/requirements.py", "subprocess"): "asks NVIDIA's own tool whether there is a card",
    ("bridge_server/setup/running.py", "subprocess"): "runs pip or uv in the set-up's own program, never a shell",
    ("bridge_server/setup/start.py", "subprocess"): "starts the set-up's program, never a shell",
    ("operators/guides.py", "subprocess"): "starts Blender's own program to render guides, never a shell",
    ("bridge_server/worker.py", "ctypes"): "Linux ends the worker together with the server (prctl)",
}


def sensitive_uses(path: Path) -> set[str]:
    """The sensitive modules a file imports and the sensitive functions it calls."""
    used = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            used |= {alias.name.partition(".")[0] for alias in node.names} & SENSITIVE_MODULES
        elif isinstance(node, ast.ImportFrom) and not node.level:
            used |= {(node.module or "").partition(".")[0]} & SENSITIVE_MODULES
            used |= {f"{node.module}.{alias.name}" for alias in node.names} & SENSITIVE_CALLS
        elif isinstance(node, ast.Call):
            harmless = any(one.arg == "weights_only" and ast.unparse(one.value) == "True" for one in node.keywords)
            used |= {ast.unparse(node.func)} & SENSITIVE_CALLS - ({"torch.load"} if harmless else set())
    return used


def test_sensitive_modules_are_used_only_where_they_are_meant() -> None:
    files = part_files("panels", "operators", "__init__.py", "bridge_server")
    used = {(name_of(path), what) for path in files for what in sensitive_uses(path)}
    assert not used - ALLOWED.keys(), "new: give a reason in ALLOWED, or do without"
    assert not ALLOWED.keys() - used, "no longer used: remove from ALLOWED"


def test_nothing_reads_pickles_or_runs_text() -> None:
    banned = {"pickle", "marshal", "shelve", "eval", "exec", "os.system", "os.popen", "torch.load"}
    wrong = [
        f"{name_of(path)}: {what}" for path in part_files(*OURS) for what in sensitive_uses(path) & banned
    ]
    assert not wrong


def test_one_version_everywhere() -> None:
    """The manifest, the package, the wire and the project file name the same version."""
    from bridge_server.protocol import SOFTWARE
    from koshi_backend import __version__

    for file in ("blender_manifest.toml", "pyproject.toml"):
        assert f'version = "{__version__}"' in (ROOT / file).read_text(encoding="utf-8"), file
    assert f"koshi {__version__}" == SOFTWARE
