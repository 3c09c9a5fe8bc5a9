"""Runs the methods of two threads in every possible order, one access to a shared word at a time.

The methods themselves are used, not a model of them: their source becomes generators that stop
before each access to a word that the other side uses too. `explore` then tries every order in
which two such generators can go on, and finds each state once.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Generator, Iterable
from types import SimpleNamespace
from typing import Any

Steps = Generator[Any, None, Any]


class Bell:
    """A doorbell whose sleeper is never woken by time."""

    def __init__(self) -> None:
        self.rung = False

    def ring(self) -> None:
        self.rung = True


class _Stops(ast.NodeTransformer):
    def __init__(self, methods: Iterable[str], shared: Iterable[str]) -> None:
        self.methods, self.shared, self.count = set(methods), set(shared), 0

    def _is_shared(self, node: ast.AST) -> bool:
        return _self_attribute(node) in self.shared

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if not self._is_shared(node):
            return self.generic_visit(node)
        self.count += 1  # kept under a name: what was read is part of the state
        return _expression(f"(_read{self.count} := ((yield), {ast.unparse(node)})[1])")

    def visit_Call(self, node: ast.Call) -> ast.AST:
        text = ast.unparse(node.func)
        arguments = [self.visit(item) for item in node.args]
        if text.startswith("super()."):
            name = f"_base_{text.removeprefix('super().')}"
        elif _self_attribute(node.func) in self.methods:
            name = f"_{text.removeprefix('self.')}"
        elif text.endswith(".wait"):
            return _expression(f"(yield {text.removesuffix('.wait')})")
        elif text.endswith(".ring"):
            return _expression(f"((yield), {text}())[1]")
        else:
            return self.generic_visit(node)
        call = _expression(f"(yield from {name}(self))")
        call.value.args.extend(arguments)  # type: ignore[attr-defined]
        return call

    def visit_Assign(self, node: ast.Assign) -> Any:
        (target,) = node.targets
        if not any(self._is_shared(item) for item in ast.walk(target)):
            node.value = self.visit(node.value)
            return node
        value = ast.Assign([ast.Name("_written", ast.Store())], self.visit(node.value))
        store = ast.Assign([target], ast.Name("_written", ast.Load()))
        return [value, ast.Expr(_expression("(yield)")), store]

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        if not self._is_shared(node.target):
            return node
        load = ast.parse(ast.unparse(node.target), mode="eval").body
        return self.visit_Assign(ast.Assign([node.target], ast.BinOp(load, node.op, node.value)))


def _self_attribute(node: ast.AST) -> str | None:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr if node.value.id == "self" else None
    return None


def _expression(text: str) -> Any:
    return ast.parse(text, mode="eval").body


def as_steps(cls: type, methods: Iterable[str], shared: Iterable[str]) -> SimpleNamespace:
    """Return the methods of ``cls`` as generator functions; only ``shared`` words are stops."""
    found: dict[str, Any] = {"time": SimpleNamespace(monotonic=lambda: 0.0)}
    for name in methods:
        owners = [item for item in cls.__mro__ if name in vars(item)]
        for prefix, owner in zip(("_", "_base_"), owners):
            method = vars(owner)[name]
            source = textwrap.dedent(inspect.getsource(getattr(method, "fget", method)))
            if "abstractmethod" in source:
                continue
            tree = _Stops(methods, shared).visit(ast.parse(source))
            function = tree.body[0]
            function.name, function.decorator_list, function.returns = prefix + name, [], None
            for argument in function.args.args:
                argument.annotation = None
            function.body.append(ast.parse("if False: yield").body[0])
            module = sys.modules[owner.__module__]
            space = {**vars(module), **found}
            code = compile(ast.fix_missing_locations(tree), f"<{name} in steps>", "exec")
            exec(code, space)
            found[prefix + name] = space[prefix + name]
    for item in found.values():  # each may call all others
        if inspect.isfunction(item) and item.__name__ in found:
            item.__globals__.update(found)
    return SimpleNamespace(**{name: found[f"_{name}"] for name in methods})


def explore(start: Callable[[], tuple[list[Steps], Any]]) -> int:
    """Try every order of the generators that ``start`` makes anew; return how many states."""
    seen: set[Any] = set()
    to_try: list[tuple[int, ...]] = [()]
    while to_try:
        sides, world = start()
        try:
            _go_on(list(to_try.pop()), sides, world, seen, to_try)
        finally:
            for steps in sides:
                _abandon(steps)
    return len(seen)


def _go_on(
    order: list[int], sides: list[Steps], world: Any, seen: set[Any], to_try: list[tuple[int, ...]]
) -> None:
    """Repeat ``order``, then go on to the end, or to a state that was seen before."""
    waits: list[Any] = [None] * len(sides)
    over = [False] * len(sides)
    for side in order:
        _step(sides, waits, over, side)
    while True:
        state = (tuple(over), tuple(map(_position, sides)), _frozen(vars(world)))
        if state in seen:
            return
        seen.add(state)
        ready = [
            side
            for side in range(len(sides))
            if not over[side] and (waits[side] is None or waits[side].rung)
        ]
        if not ready:
            assert all(over), f"asleep for ever after {order}"
            return
        to_try.extend((*order, side) for side in ready[1:])
        order.append(ready[0])
        _step(sides, waits, over, ready[0])


def _step(sides: list[Steps], waits: list[Any], over: list[bool], side: int) -> None:
    if waits[side] is not None:
        waits[side].rung = False
    try:
        waits[side] = next(sides[side])
    except StopIteration:
        waits[side], over[side] = None, True


def _abandon(steps: Steps) -> None:
    """Leave through the `finally` blocks, which have stops too."""
    try:
        steps.throw(_AbandonedError)
        for _ in steps:
            pass
    except (_AbandonedError, StopIteration):
        return


class _AbandonedError(Exception):
    pass


def _position(steps: Any) -> Any:
    found = []
    while steps is not None and steps.gi_frame is not None:
        found.append((steps.gi_frame.f_lasti, _frozen(dict(steps.gi_frame.f_locals))))
        steps = steps.gi_yieldfrom
    return tuple(found)


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((key, _frozen(item)) for key, item in sorted(value.items()) if key != "self")
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, Bell):
        return value.rung
    if isinstance(value, Slot):
        return value.place, value.number
    return value if isinstance(value, (int, float, str, bool, type(None))) else None


class Slot:
    """Stands for a frame: shows whether it is being written."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.number = 0

    def fill(self, number: int) -> Steps:
        self.number = -number  # half written
        yield
        self.number = number
