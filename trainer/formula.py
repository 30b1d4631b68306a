"""Arithmetic over named numbers, as in OpenAI's multi grader. Nothing else of Python is let through. Torch-free."""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[float], float]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_FUNCTIONS: dict[str, tuple[Callable[..., float], range]] = {  # and how many arguments each takes
    "min": (min, range(2, 65)),
    "max": (max, range(2, 65)),
    "abs": (abs, range(1, 2)),
    "floor": (math.floor, range(1, 2)),
    "ceil": (math.ceil, range(1, 2)),
    "exp": (math.exp, range(1, 2)),
    "sqrt": (math.sqrt, range(1, 2)),
    "log": (math.log, range(1, 3)),
}


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula that has been checked; `names` are the numbers that it needs."""

    tree: ast.expr
    names: frozenset[str]

    def value(self, numbers: Mapping[str, float]) -> float:
        """Raises ArithmeticError or ValueError where it has none (1 / 0, log(-1), a number too large)."""
        return float(_value(self.tree, numbers))


def parse_formula(text: str) -> Formula:
    """Raises ValueError that says what in it is no arithmetic. `^` is a power, as `**`."""
    try:
        tree = ast.parse(text.strip().replace("^", "**"), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} is no formula: {error}") from error
    return Formula(tree, frozenset(_names(tree)))


def _names(node: ast.expr) -> set[str]:
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return set()
        case ast.Name():
            return {node.id}
        case ast.BinOp() if type(node.op) in _BINARY:
            return _names(node.left) | _names(node.right)
        case ast.UnaryOp() if type(node.op) in _UNARY:
            return _names(node.operand)
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS and len(node.args) in _FUNCTIONS[name][1]:
            return set().union(*map(_names, node.args))
    raise ValueError(f"{ast.unparse(node)!r} is no arithmetic: there are + - * / ^, {', '.join(_FUNCTIONS)}, numbers and names")


def _value(node: ast.expr, numbers: Mapping[str, float]) -> float:
    match node:
        case ast.Constant():
            return float(node.value)  # type: ignore[arg-type]  # `_names` has seen that it is a number
        case ast.Name():
            return numbers[node.id]
        case ast.BinOp():
            return _BINARY[type(node.op)](_value(node.left, numbers), _value(node.right, numbers))
        case ast.UnaryOp():
            return _UNARY[type(node.op)](_value(node.operand, numbers))
        case ast.Call(func=ast.Name(id=name)):
            return _FUNCTIONS[name][0](*(_value(argument, numbers) for argument in node.args))
    raise AssertionError(node)
