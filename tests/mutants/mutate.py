"""Small faults of one line each, found in the syntax tree and written into the text."""

from __future__ import annotations

import ast
import builtins
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOTS = {"edgecnn": "edgecnn", "converters": "converters/edgecnn_converters", "targets": "targets/edgecnn_targets"}
COMPARED = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
COMPUTED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
SWAPPED = {"min": "max", "minimum": "maximum", "amin": "amax", "argmin": "argmax", "any": "all", "rint": "floor"}
CALLED = SWAPPED | {after: before for before, after in SWAPPED.items()} | {"floor": "ceil", "ceil": "floor"}
SAID = {"say", "detail", "warn", "debug", "info", "warning", "track", "InputError", "UnsupportedError", "add_argument"}
UNSEEN = {"__repr__", "__str__", "_repr_html_", "__hash__"}
SPEED = re.compile(r"(?i)chunk|worker|thread|timeout|cache|poll|patience|^grace|_s$|within|buffer|memory|unused")
"""Names of settings that change how long something takes, and not what comes of it."""
HARMLESS = {
    "strict",
    "copy",
    "exist_ok",
    "parents",
    "missing_ok",
    "check",
    "text",
    "capture_output",
    "flush",
    "inplace",
}
HARMLESS |= {"non_blocking", "stacklevel", "indent", "sort_keys", "allow_nan", "width", "encoding", "errors"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One fault.

    Attributes:
        path: of the file, from the repository's root.
        line: where it stands, from 1.
        what: the text before and after.
        lines: of the statement that it is in; of a constant of the file, also of its uses.
        scope: lines of the function, class or file around it.
        function: the name of that function or class with those around it, as ``Class.method``; empty in a file.
        at_import: the statement runs when the file is imported.
        start: of the text that is replaced, in bytes.
        end: of it.
        after: what takes its place.
    """

    path: str
    line: int
    what: str
    lines: Sequence[int]
    scope: range
    function: str
    at_import: bool
    start: int
    end: int
    after: str

    @property
    def room(self) -> str:
        """Name the part of the house it is in."""
        return room_of(self.path)

    @property
    def place(self) -> tuple[str, str, str]:
        """Name the fault without its line, which changes with the lines above."""
        return self.path, self.function, self.what

    @property
    def key(self) -> str:
        """Name the fault in a commit."""
        return f"{self.path}:{self.line} {self.what}"

    def text(self, tree: Path) -> str:
        """Return the whole file with the fault."""
        source = (tree / self.path).read_bytes()
        return (source[: self.start] + self.after.encode() + source[self.end :]).decode()


def room_of(path: str) -> str:
    """Name the part of the house that a file is in; ``core`` is what lies beside the folders of ``edgecnn``."""
    first, *rest = path.split("/")
    return first if first != "edgecnn" else rest[0] if len(rest) > 1 else "core"


def files(tree: Path) -> list[str]:
    """List the files that faults are put into."""
    found = (path for root in ROOTS.values() for path in (tree / root).rglob("*.py"))
    return sorted(path.relative_to(tree).as_posix() for path in found)


def mutants_of(tree: Path, path: str) -> list[Mutant]:
    """List the faults of a file, in the order of its lines."""
    source = (tree / path).read_text("utf-8")
    finder = _Finder(path, source)
    finder.visit(ast.parse(source))
    return sorted(finder.found, key=lambda mutant: (mutant.line, mutant.what))


class _Finder(ast.NodeVisitor):
    """Visits what may be mutated; what it does not descend into is left alone."""

    def __init__(self, path: str, source: str) -> None:
        self.path, self.found = path, list[Mutant]()
        self._bytes = source.encode()
        starts = [0]
        for line in self._bytes.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        self._starts = starts
        self._scopes: list[Function | ast.ClassDef] = []
        self._lines: Sequence[int] = ()
        self._at_import, self._last = True, source.count("\n") + 1
        self._uses: dict[str, list[int]] = defaultdict(list)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                self._uses[node.id].append(node.lineno)

    # --- where it goes ---

    def visit(self, node: ast.AST) -> None:
        """Note the statement, list the node's faults, and go on to its children."""
        if isinstance(node, ast.stmt) and not isinstance(node, Function | ast.ClassDef):
            body = getattr(node, "body", None)
            self._lines = range(node.lineno, max(node.lineno, body[0].lineno - 1 if body else node.end_lineno) + 1)
        for replaced, after in self._faults(node):
            self._note(replaced, after)
        super().visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Visit the body; neither decorators nor bases."""
        self._within(node, node.body, at_import=self._at_import)

    def visit_FunctionDef(self, node: Function) -> None:
        """Visit defaults, and the body; no annotations and no decorators."""
        if node.name in UNSEEN:
            return
        named = [*node.args.posonlyargs, *node.args.args]
        defaults = [*zip(named[len(named) - len(node.args.defaults) :], node.args.defaults, strict=True)]
        defaults += [*zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
        lines, self._lines = self._lines, range(node.lineno, node.body[0].lineno)
        self._within(node, [value for name, value in defaults if value and not SPEED.search(name.arg)], at_import=True)
        self._lines = lines
        self._within(node, node.body, at_import=False)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Assign(self, node: ast.Assign | ast.AnnAssign) -> None:
        """Visit the value, unless it is a setting of speed; note where a constant of the file is used."""
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if node.value is None or any(_quick(target) for target in targets):
            return
        if not self._scopes:
            used = [use for target in targets for use in self._uses.get(_name(target), ())]
            self._lines = [*self._lines, *used]
        self.visit(node.value)

    visit_AnnAssign = visit_Assign

    def visit_keyword(self, node: ast.keyword) -> None:
        """Visit the value, unless the argument changes no result."""
        if node.arg is None or not (node.arg in HARMLESS or SPEED.search(node.arg)):
            self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        """Leave out what only the type checker reads."""
        if "TYPE_CHECKING" not in ast.unparse(node.test):
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Leave out texts for people."""
        if _name(node.func) not in SAID:
            self.generic_visit(node)

    def _leave(self, node: ast.AST) -> None:
        """Do not descend: texts, assertions for the type checker, what is raised."""

    visit_JoinedStr = visit_Assert = visit_Raise = visit_Import = visit_ImportFrom = _leave

    def _within(self, scope: Function | ast.ClassDef, nodes: list[ast.AST], *, at_import: bool) -> None:
        before, self._at_import = self._at_import, at_import
        self._scopes.append(scope)
        for node in nodes:
            self.visit(node)
        self._scopes.pop()
        self._at_import = before

    # --- what it changes ---

    def _faults(self, node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
        """Yield the node that is replaced, and the text that takes its place."""
        match node:
            case ast.Compare(ops=[op]) if not isinstance(node.left, ast.Constant):
                for other in COMPARED[type(op)]:
                    yield from _changed(node, ops=[other()])
            case ast.BinOp(op=op) if type(op) in COMPUTED and not _is_type(node) and not _is_text(node):
                yield from _changed(node, op=COMPUTED[type(op)]())
            case ast.BoolOp():
                yield from _changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
            case ast.UnaryOp(op=ast.USub() | ast.Not()):
                yield node, f"({ast.unparse(node.operand)})"
            case ast.Constant(value=bool()):
                yield from _changed(node, value=not node.value)
            case ast.Constant(value=int()):
                yield from _changed(node, value=node.value + 1)
            case ast.Constant(value=float()):
                yield from _changed(node, value=node.value * 2 or 1.0)
            case ast.Slice(lower=lower, upper=upper):
                for bound in (lower, upper):
                    if bound is not None and not isinstance(bound, ast.Constant):
                        yield bound, f"({ast.unparse(bound)} + 1)"
            case ast.Return(value=value) if value is not None and not _is_empty(value):
                yield node, "return None"
            case ast.Raise():
                yield node, "pass"
            case ast.Expr(value=ast.Call(func=called)) if _name(called) not in SAID:
                yield node, "pass"
            case ast.Call(func=called):
                after = CALLED.get(_name(called))
                if after and isinstance(called, ast.Attribute):
                    yield called, ast.unparse(ast.Attribute(called.value, after))
                elif after and hasattr(builtins, after):
                    yield called, after
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
                if not isinstance(test, ast.Compare | ast.UnaryOp):
                    yield test, f"(not ({ast.unparse(test)}))"

    def _note(self, node: ast.AST, after: str) -> None:
        start = self._starts[node.lineno - 1] + node.col_offset
        end = self._starts[node.end_lineno - 1] + node.end_col_offset
        before = " ".join(self._bytes[start:end].decode().split())
        scope = self._scopes[-1] if self._scopes else None
        lines = range(1, self._last) if scope is None else range(scope.lineno, scope.end_lineno + 1)
        self.found.append(
            Mutant(
                path=self.path,
                line=node.lineno,
                what=f"{before} -> {after}",
                lines=self._lines,
                scope=lines,
                function=".".join(each.name for each in self._scopes),
                at_import=self._at_import,
                start=start,
                end=end,
                after=after,
            )
        )


def _changed(node: ast.expr, **fields: object) -> Iterator[tuple[ast.expr, str]]:
    """Yield an expression and its text with other fields."""
    kept = {name: getattr(node, name) for name in node._fields}
    yield node, f"({ast.unparse(type(node)(**kept | fields))})"


def _name(called: ast.AST) -> str:
    """Return the last part of the name that is called, or nothing."""
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def _quick(target: ast.AST) -> bool:
    """Say whether a name is that of a setting of speed."""
    return bool(SPEED.search(_name(target)))


def _is_type(node: ast.expr) -> bool:
    """Say whether an expression is a type: ``A | B``, a name that begins with a capital, a built-in type, ``None``."""
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.BitOr) and _is_type(node.left) and _is_type(node.right)
    if isinstance(node, ast.Subscript):
        return _is_type(node.value)
    name = _name(node)
    return _constant(node, None) or name[:1].isupper() or isinstance(getattr(builtins, name, None), type)


def _is_text(node: ast.BinOp) -> bool:
    """Say whether texts are joined, or one is formatted."""
    return any(isinstance(each, ast.JoinedStr) or _constant(each, str) for each in (node.left, node.right))


def _is_empty(value: ast.expr) -> bool:
    """Say whether a value is as false as ``None``: then none may tell them apart."""
    return isinstance(value, ast.Constant) and not value.value


def _constant(node: ast.AST, kind: type | None) -> bool:
    """Say whether a node is a constant of a type, or ``None``."""
    return isinstance(node, ast.Constant) and (node.value is None if kind is None else isinstance(node.value, kind))
