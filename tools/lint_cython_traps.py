"""Cython that compiles without a word and does something else than it says.

Neither Cython nor the C compiler warns of these.  The checks work on Cython's own
syntax tree; a line that ends in `# trap: REASON` is let through.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from Cython.Compiler import Errors, ExprNodes, Nodes
from Cython.Compiler.TreeFragment import StringParseContext, parse_from_strings

Check = Callable[[Any, list[Any]], str | None]
KINDS = ("*.pxd", "*.pxi", "*.pyx")


class Finding(NamedTuple):
    """One trap: where it is and what it does."""

    path: str
    line: int
    rule: str
    message: str


def integer(node: Any) -> int | None:
    """The value of an integer literal, which may have a sign or parentheses."""
    if isinstance(node, ExprNodes.UnaryMinusNode):
        value = integer(node.operand)
        return None if value is None else -value
    return int(node.value, 0) if isinstance(node, ExprNodes.IntNode) else None


def descendants(node: Any) -> Iterator[Any]:
    """The node and all nodes below it."""
    yield node
    for attribute in getattr(node, "child_attrs", None) or ():
        child = getattr(node, attribute)
        for item in child if isinstance(child, list) else [child]:
            if item is not None:
                yield from descendants(item)


def shift(node: Any, _: list[Any]) -> str | None:
    """A C int is shifted: `1 << 40` is 0."""
    if not isinstance(node, ExprNodes.IntBinopNode) or node.operator != "<<":
        return None
    left, right = node.operand1, integer(node.operand2)
    value = integer(left)
    if value is None or left.longness or (right is not None and value << right < 1 << 31):
        return None
    return "shifts a 32-bit int: cast the left operand, `<uint64_t>1 << n`, or write `1ULL << 40`"


def complement(node: Any, _: list[Any]) -> str | None:
    """`~4095U` is a 32-bit value: the high half of what it masks is lost."""
    if not isinstance(node, ExprNodes.TildeNode):
        return None
    inner = list(descendants(node.operand))
    narrow = any(isinstance(n, ExprNodes.IntNode) and n.unsigned and not n.longness for n in inner)
    if not narrow or any(isinstance(n, ExprNodes.TypecastNode) for n in inner):
        return None
    return "clears the high half of a 64-bit value: write `~<uint64_t>…`"


def descending_range(node: Any, _: list[Any]) -> str | None:
    """With an unsigned index the loop runs zero times."""
    if not isinstance(node, ExprNodes.SimpleCallNode) or len(node.args or ()) != 3:
        return None
    step = integer(node.args[2])
    if getattr(node.function, "name", None) != "range" or step is None or step >= 0:
        return None
    return "runs zero times with an unsigned index: write `reversed(range(n))`"


def true_division(node: Any, _: list[Any]) -> str | None:
    """At language level 3 `/` gives a floating-point number."""
    operator = getattr(node, "operator", None)
    if operator != "/" or not isinstance(node, ExprNodes.DivNode | Nodes.InPlaceAssignmentNode):
        return None
    return "is a floating-point division: write `//`"


def module_initialiser(node: Any, parents: list[Any]) -> str | None:
    """It runs in module initialisation, which the core does not have."""
    if not isinstance(node, Nodes.CVarDefNode) or any(
        isinstance(p, Nodes.FuncDefNode) for p in parents
    ):
        return None
    declarators = [d for top in node.declarators for d in descendants(top)]
    if not any(getattr(d, "default", None) for d in declarators):
        return None
    return "is never executed, the variable stays 0: use an enum, verbatim C or an init function"


def missing_noexcept(node: Any, parents: list[Any]) -> str | None:
    """Each call would look for a Python exception, with the GIL."""
    if not isinstance(node, Nodes.CFuncDeclaratorNode):
        return None
    if not node.exception_check and node.exception_value is None:
        return None
    # A Python function's declarator (def) has no exception clause of its own.
    if any(isinstance(p, Nodes.DefNode) for p in parents):
        return None
    return "looks for a Python exception after each call: write noexcept"


def python_statement(node: Any, _: list[Any]) -> str | None:
    """The core has no Python."""
    raising = Nodes.AssertStatNode, Nodes.RaiseStatNode, Nodes.TryExceptStatNode
    if isinstance(node, raising) or (isinstance(node, Nodes.GILStatNode) and node.state == "gil"):
        return "needs Python, which the core must not: return a code"
    return None


def enumerator(node: Any, _: list[Any]) -> str | None:
    """Cython reads it as a C int."""
    if not isinstance(node, Nodes.CEnumDefItemNode) or node.value is None:
        return None
    value = integer(node.value)
    if value is None or value < 1 << 31 or node.value.value[:2].lower() == "0x":
        return None
    return "does not fit a C int: write the hexadecimal literal"


def cimport_form(node: Any, _: list[Any]) -> str | None:
    """Debuggers find a source only by the full path that absolute cimports give."""
    if isinstance(node, Nodes.FromCImportStatNode):
        if node.relative_level:
            return "is relative: write `from dlopen.core.layer.module cimport name`"
        if node.module_name.startswith("dlopen.") and node.module_name.count(".") < 3:
            return "names a module: write `from dlopen.core.layer.module cimport name`"
    if isinstance(node, Nodes.CImportStatNode) and node.module_name.startswith("dlopen"):
        return "names a module: write `from dlopen.core.layer.module cimport name`"
    return None


EVERYWHERE: tuple[Check, ...] = (shift, complement, descending_range, enumerator, cimport_form)
CORE_ONLY: tuple[Check, ...] = (
    true_division,
    module_initialiser,
    missing_noexcept,
    python_statement,
)


def visit(
    node: Any, parents: list[Any], checks: tuple[Check, ...]
) -> Iterator[tuple[int, str, str]]:
    """Line, rule and message for each node that a check objects to."""
    for check in checks:
        if message := check(node, parents):
            yield node.pos[1], check.__name__, message
    below = [*parents, node]
    for attribute in getattr(node, "child_attrs", None) or ():
        child = getattr(node, attribute)
        for item in child if isinstance(child, list) else [child]:
            if item is not None:
                yield from visit(item, below, checks)


def lint(code: str, path: Path, *, core: bool) -> list[Finding]:
    """The traps in one source, in order of lines.

    Args:
        code: the source.
        path: its name; the ending .pxd matters.
        core: it is part of libdlopen.so, which holds no Python.
    """
    context = StringParseContext(path.stem, include_directories=[])
    context.set_language_level(3)
    level = "module_pxd" if path.suffix == ".pxd" else "module"
    Errors.init_thread()
    # What is included is a source of its own here.
    alone = re.sub(r"^include\b.*$", "", code, flags=re.MULTILINE)
    tree = parse_from_strings(path.stem, alone, context=context, level=level)
    lines = code.splitlines()
    found = visit(tree, [], EVERYWHERE + (CORE_ONLY if core else ()))
    return sorted({Finding(str(path), *f) for f in found if "# trap: " not in lines[f[0] - 1]})


def main() -> int:
    """Report the traps in all Cython sources below the folders given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+")
    findings = []
    for folder in parser.parse_args().folder:
        for path in sorted(path for kind in KINDS for path in folder.rglob(kind)):
            core = "core" in path.parts or path.name == "libdlopen.pyx"
            findings += lint(path.read_text(encoding="utf-8"), path, core=core)
    for finding in findings:
        print(f"{finding.path}:{finding.line}: {finding.rule}: {finding.message}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
