"""A condition on networks, as a line of text: `depth <= 12 and widths[0] >= 24 and max(widths) / min(widths) < 8`.

In: the text of a study's `[[space]]`. Out: a predicate. The text is Python's expression syntax, of which comparisons,
arithmetic, `and`, `or`, `not`, `in`, indices and a few functions are understood, and it sees the columns of a network
(families.py) alone. Nothing is executed: the syntax tree is walked here.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from sweep.spaces.checks import nearest
from sweep.spaces.families import columns_of
from sweep.spaces.network import Network

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "len": len,
    "max": max,
    "min": min,
    "sum": sum,
    "sorted": sorted,
}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, among: value in among,
    ast.NotIn: lambda value, among: value not in among,
}


class Condition:
    """Callable on a network. Raises ValueError, when it is made, for what is not understood or not known."""

    def __init__(self, text: str, known: Mapping[str, Any]):
        """`known` has the columns of the networks that it will see, with any values."""
        self.text = text
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError) as error:
            raise ValueError(f"where = {text!r} is no condition ({error}); write for example depth <= 12") from None
        for node in ast.walk(self._tree):
            self._check(node, known)

    def __call__(self, network: Network) -> bool:
        try:
            return bool(self._value(self._tree, {**columns_of(network), "depth": network.depth}))
        except (TypeError, IndexError, ZeroDivisionError, OverflowError, ValueError) as error:
            raise ValueError(f"where = {self.text!r} cannot be worked out for a network ({error}); mend it") from error

    def _check(self, node: ast.AST, known: Mapping[str, Any]) -> None:
        if isinstance(node, ast.Name) and node.id not in known and node.id not in _FUNCTIONS:
            raise ValueError(f"where = {self.text!r} speaks of {node.id!r}; {nearest(node.id, [*known, *_FUNCTIONS])}")
        understood = (
            ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Call, ast.Name, ast.Constant, ast.Subscript, ast.Tuple,
            ast.List, ast.Load, ast.boolop, ast.Not, ast.USub, ast.operator, ast.cmpop,
        )  # fmt: skip
        odd_operator = isinstance(node, ast.operator | ast.cmpop) and type(node) not in (*_BINARY, *_COMPARE)
        odd_call = isinstance(node, ast.Call) and (
            not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS or node.keywords
        )
        if not isinstance(node, understood) or odd_operator or odd_call:
            raise ValueError(
                f"where = {self.text!r} holds {type(node).__name__}, which is not understood; use comparisons, "
                f"arithmetic, and, or, not, in, indices and {', '.join(_FUNCTIONS)}"
            )

    def _value(self, node: ast.AST, names: Mapping[str, Any]) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return names[node.id] if node.id in names else _FUNCTIONS[node.id]
            case ast.Tuple() | ast.List():
                return tuple(self._value(entry, names) for entry in node.elts)
            case ast.BoolOp():
                combine = all if isinstance(node.op, ast.And) else any
                return combine(self._value(value, names) for value in node.values)
            case ast.UnaryOp():
                value = self._value(node.operand, names)
                return not value if isinstance(node.op, ast.Not) else -value
            case ast.BinOp():
                return _BINARY[type(node.op)](self._value(node.left, names), self._value(node.right, names))
            case ast.Compare():
                values = [self._value(value, names) for value in (node.left, *node.comparators)]
                return all(_COMPARE[type(op)](a, b) for op, a, b in zip(node.ops, values, values[1:]))
            case ast.Subscript():
                return self._value(node.value, names)[self._value(node.slice, names)]
            case ast.Call():
                return self._value(node.func, names)(*(self._value(argument, names) for argument in node.args))
        raise AssertionError(type(node))
