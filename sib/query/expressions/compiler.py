"""The compiler of expressions: literals, field paths, variables, objects, and the table of operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from sib.errors import QuerySyntaxError
from sib.query.budget import Context, check_nesting
from sib.query.paths import checked_parts, read, reader
from sib.query.values import MISSING

Variables: TypeAlias = Mapping[str, Any]
Expression: TypeAlias = Callable[[Any, Variables], Any]
"""Gives the value of the expression for a document and the user's variables; MISSING where there is none."""

REFUSED = frozenset(("$function", "$accumulator", "$where", "$meta"))


@dataclass(frozen=True, slots=True)
class Scope:
    """What the compiler knows: the context of the query, and the names of the variables that exist here."""

    context: Context
    names: frozenset[str] = field(default_factory=frozenset)

    def compile(self, spec: Any) -> Expression:
        """Compiles an expression inside this scope."""
        return _compile(spec, self)

    def compile_all(self, specs: list[Any]) -> list[Expression]:
        """Compiles several."""
        return [_compile(spec, self) for spec in specs]

    def with_names(self, *names: str) -> Scope:
        """The scope with more variables, whose names are checked."""
        for name in names:
            if not isinstance(name, str) or not name or not (name[0].islower() or not name[0].isascii()):
                raise QuerySyntaxError(f"the variable {name!r} must start with a lower-case letter")
        return Scope(self.context, self.names | frozenset(names))


OperatorCompiler: TypeAlias = Callable[[Any, Scope], Expression]
OPERATORS: dict[str, OperatorCompiler] = {}


def operator(name: str) -> Callable[[OperatorCompiler], OperatorCompiler]:
    """Registers the function that compiles an operator from its argument."""

    def register(compile_operator: OperatorCompiler) -> OperatorCompiler:
        OPERATORS[name] = compile_operator
        return compile_operator

    return register


def function(name: str, least: int, most: int | None = -1) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a plain function of evaluated arguments as an operator.

    Args:
        name: the operator.
        least: arguments it needs.
        most: arguments it takes; None is any number, -1 is as many as it needs.
    """
    most = least if most == -1 else most

    def register(apply: Callable[..., Any]) -> Callable[..., Any]:
        OPERATORS[name] = partial(_compile_function, name, apply, least, most)
        return apply

    return register


def _compile_function(
    name: str, apply: Callable[..., Any], least: int, most: int | None, argument: Any, scope: Scope
) -> Expression:
    arguments = scope.compile_all(argument_list(name, argument, least, most))
    if len(arguments) == 1:
        only = arguments[0]
        return lambda document, variables: apply(only(document, variables))
    if len(arguments) == 2:
        first, second = arguments
        return lambda document, variables: apply(first(document, variables), second(document, variables))
    return lambda document, variables: apply(*[evaluate(document, variables) for evaluate in arguments])


def argument_list(name: str, argument: Any, least: int, most: int | None) -> list[Any]:
    """The arguments of an operator, which may be written without the array when there is one.

    Raises:
        QuerySyntaxError: too few or too many.
    """
    arguments = list(argument) if isinstance(argument, (list, tuple)) else [argument]
    if len(arguments) < least or (most is not None and len(arguments) > most):
        wanted = f"{least}" if most == least else f"{least} or more" if most is None else f"{least} to {most}"
        raise QuerySyntaxError(f"{name} takes {wanted} arguments, not {len(arguments)}")
    return arguments


def named_arguments(
    name: str, argument: Any, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The arguments of an operator that takes an object.

    Raises:
        QuerySyntaxError: not an object, an unknown name, or a required one is missing.
    """
    if not isinstance(argument, Mapping):
        raise QuerySyntaxError(f"{name} needs an object with {', '.join(required + optional)}")
    for given in argument:
        if given not in required and given not in optional:
            raise QuerySyntaxError(f"{name} does not know the argument {given!r}")
    for wanted in required:
        if wanted not in argument:
            raise QuerySyntaxError(f"{name} needs the argument {wanted!r}")
    return dict(argument)


def compile_expression(spec: Any, context: Context, names: frozenset[str] = frozenset()) -> Expression:
    """Compiles an expression.

    Args:
        spec: the expression as BSON values.
        context: budget, ``$$NOW`` and variables from outside; the names of the latter are known.
        names: further variables that will be there.

    Raises:
        QuerySyntaxError: an unknown or refused operator, a wrong argument, an unknown variable, or nesting beyond MAX_NESTING.
    """
    check_nesting(spec, "expression")
    return _compile(spec, Scope(context, names | frozenset(context.variables)))


def evaluate_constant(spec: Any, context: Context) -> Any:
    """The value of an expression that reads no field."""
    return compile_expression(spec, context)({}, context.variables)


def _compile(spec: Any, scope: Scope) -> Expression:
    if type(spec) is str:
        return _compile_text(spec, scope)
    if isinstance(spec, Mapping):
        return _compile_object(spec, scope)
    if isinstance(spec, (list, tuple)):
        return _compile_array(list(spec), scope)
    return constant(spec)


def constant(value: Any) -> Expression:
    """The expression that is always the value."""
    return lambda _document, _variables: value


def _compile_text(text: str, scope: Scope) -> Expression:
    if text.startswith("$$"):
        return _compile_variable(text[2:], scope)
    if text.startswith("$"):
        read_path = reader(text[1:])
        return lambda document, _: read_path(document)
    return constant(text)


def _compile_variable(reference: str, scope: Scope) -> Expression:
    name, _, path = reference.partition(".")
    evaluate = _variable(name, scope)
    if not path:
        return evaluate
    parts = checked_parts(path, "a field path")
    return lambda document, variables: read(evaluate(document, variables), parts)


def _variable(name: str, scope: Scope) -> Expression:
    if name in scope.names:
        return lambda _, variables: variables[name]
    if name in ("ROOT", "CURRENT"):
        return lambda document, _: document
    if name == "REMOVE":
        return constant(MISSING)
    if name == "NOW":
        context = scope.context
        return lambda _document, _variables: context.current_time()
    if name in _MARKS:
        return constant(_MARKS[name])
    raise QuerySyntaxError(f"unknown variable $${name}")


_MARKS = {"DESCEND": "descend", "PRUNE": "prune", "KEEP": "keep"}
"""The answers of ``$redact``."""


def _compile_object(spec: Mapping[str, Any], scope: Scope) -> Expression:
    first = next(iter(spec), "")
    if isinstance(first, str) and first.startswith("$"):
        if len(spec) != 1:
            raise QuerySyntaxError(f"an expression has one operator: {first} stands beside other fields")
        return compile_operator(first, spec[first], scope)
    fields: list[tuple[str, Expression]] = []
    for name, value in spec.items():
        if not isinstance(name, str) or name.startswith("$"):
            raise QuerySyntaxError(f"{name!r} cannot stand beside fields in an expression")
        if "." in name:
            raise QuerySyntaxError(f"the field {name!r} of an object expression cannot hold a dot")
        fields.append((name, _compile(value, scope)))

    def evaluate(document: Any, variables: Variables) -> Any:
        made = ((name, make(document, variables)) for name, make in fields)
        return {name: value for name, value in made if value is not MISSING}

    return evaluate


def compile_operator(name: str, argument: Any, scope: Scope) -> Expression:
    """Compiles one operator.

    Raises:
        QuerySyntaxError: it is unknown or refused.
    """
    if name in REFUSED:
        raise QuerySyntaxError(f"{name} is refused: server-side JavaScript and text scores are not supported")
    compile_it = OPERATORS.get(name)
    if compile_it is None:
        raise QuerySyntaxError(f"unknown expression operator {name}")
    return compile_it(argument, scope)


def _compile_array(items: list[Any], scope: Scope) -> Expression:
    elements = scope.compile_all(items)

    def evaluate(document: Any, variables: Variables) -> Any:
        made = [element(document, variables) for element in elements]
        return [None if value is MISSING else value for value in made]

    return evaluate


def is_nullish(value: Any) -> bool:
    """Whether most operators answer null because of this argument."""
    return value is None or value is MISSING
