"""Projections: what of a document is shown, for find and for ``$project``, and the setting of computed fields.

Source: MongoDB manual, "Project Fields to Return from Query", "$project", "$addFields".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sib.errors import QueryError, QuerySyntaxError
from sib.query.budget import Context, check_made_value, check_nesting
from sib.query.expressions import Expression, compile_expression
from sib.query.matcher import compile_element
from sib.query.numbers import as_whole
from sib.query.paths import Parts, Predicate, check_path_conflicts, checked_parts, read_exact
from sib.query.positional import compile_position
from sib.query.values import MISSING, is_number, is_truthy

Document: TypeAlias = dict[str, Any]
Tree: TypeAlias = dict[str, Any]
"""Nested names; a leaf is True (include, exclude) or an Expression (compute)."""


def compile_projection(
    spec: Mapping[str, Any] | Sequence[str] | None,
    filter_spec: Mapping[str, Any] | None = None,
    context: Context | None = None,
) -> Callable[[Document], Document]:
    """Compiles the projection of a find.

    Args:
        spec: ``{path: 1 | 0 | expression | {$slice} | {$elemMatch}}``, ``{"path.$": 1}``, or a list of paths to include.
        filter_spec: the filter of the find, for the positional ``$``.
        context: what expressions read.

    Returns:
        A function that makes a new document and leaves the given one as it is.

    Raises:
        QuerySyntaxError: inclusion and exclusion mixed, paths in conflict, or wrong arguments.
    """
    if not spec:
        return lambda document: document
    fields = spec if isinstance(spec, Mapping) else dict.fromkeys(spec, 1)
    plan = _read(fields, context if context is not None else Context(), filter_spec=filter_spec or {}, is_find=True)
    return plan.compile()


def compile_project_stage(spec: Mapping[str, Any], context: Context) -> Callable[[Document], Document]:
    """Compiles ``$project``: as a find's projection, but ``$slice`` is the expression and there is no ``$elemMatch``."""
    if not isinstance(spec, Mapping) or not spec:
        raise QuerySyntaxError("$project needs an object with at least one field")
    return _read(spec, context, filter_spec={}, is_find=False).compile()


def compile_add_fields(spec: Mapping[str, Any], context: Context) -> Callable[[Document], Document]:
    """Compiles ``$addFields`` (``$set``): new or replaced fields, all computed from the document as it came in."""
    if not isinstance(spec, Mapping) or not spec:
        raise QuerySyntaxError("$addFields needs an object with at least one field")
    check_nesting(spec, "$addFields")
    plan = _Plan(context)
    for path, value in _flatten(spec, expressions_only=True):
        plan.computed.append((checked_parts(path, "$addFields"), _compute(value, context)))
    plan.check_conflicts()
    tree = _tree_of_expressions(plan.computed)
    return lambda document: _set_computed(document, tree, document, context)


def compile_unset(paths: Any, context: Context) -> Callable[[Document], Document]:
    """Compiles ``$unset`` of a pipeline."""
    names = [paths] if isinstance(paths, str) else paths
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise QuerySyntaxError("$unset needs a field name or an array of them")
    return _read(dict.fromkeys(names, 0), context, filter_spec={}, is_find=False).compile()


def _flatten(spec: Mapping[str, Any], prefix: str = "", *, expressions_only: bool = False) -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in spec.items():
        if not isinstance(name, str) or name.startswith("$"):
            raise QuerySyntaxError(f"a projection names fields, and {name!r} is not one")
        if isinstance(value, Mapping) and not any(str(key).startswith("$") for key in value):
            if value:
                flat.extend(_flatten(value, f"{prefix}{name}.", expressions_only=expressions_only))
                continue
            if not expressions_only:
                raise QuerySyntaxError(f"the projection of {prefix + name!r} is an empty object")
        flat.append((prefix + name, value))
    return flat


@dataclass
class _Plan:
    context: Context
    included: list[Parts] = field(default_factory=list)
    excluded: list[Parts] = field(default_factory=list)
    computed: list[tuple[Parts, Expression]] = field(default_factory=list)
    sliced: list[tuple[Parts, Callable[[list[Any]], list[Any]]]] = field(default_factory=list)
    element_matched: list[tuple[Parts, Predicate]] = field(default_factory=list)
    positional: list[tuple[Parts, Callable[[Any], int | None]]] = field(default_factory=list)
    shows_id: bool = True
    is_id_named: bool = False

    def check_conflicts(self) -> None:
        paths = [*self.included, *self.excluded]
        for named in (self.computed, self.sliced, self.element_matched, self.positional):
            paths += [parts for parts, _ in named]
        check_path_conflicts(paths, lambda path, other: f"the projection names {path!r} and {other!r}, which overlap")

    def compile(self) -> Callable[[Document], Document]:
        self.check_conflicts()
        chosen = [
            *self.included,
            *(parts for parts, _ in self.element_matched),
            *(parts for parts, _ in self.positional),
        ]
        is_inclusion = bool(chosen or self.computed) or (self.is_id_named and self.shows_id and not self.excluded)
        if self.excluded and is_inclusion:
            raise QuerySyntaxError("a projection either includes fields or excludes them, except for _id: not both")
        if is_inclusion and (chosen or self.computed or not self.sliced):
            chosen += [parts for parts, _ in self.sliced]
            select = self._inclusion(chosen)
        else:
            excluded = self.excluded if self.shows_id else [*self.excluded, ("_id",)]
            tree = _tree_of_names(excluded)
            select = lambda document: _exclude(document, tree)  # noqa: E731
        return self._with_array_parts(select)

    def _inclusion(self, chosen: list[Parts]) -> Callable[[Document], Document]:
        tree = _tree_of_names(chosen)
        if self.shows_id and not any(parts[0] == "_id" for parts, _ in self.computed):
            tree.setdefault("_id", True)
        computed, context = _tree_of_expressions(self.computed), self.context
        if not computed:
            return lambda document: _include(document, tree)
        return lambda document: _set_computed(_include(document, tree), computed, document, context)

    def _with_array_parts(self, select: Callable[[Document], Document]) -> Callable[[Document], Document]:
        if not (self.sliced or self.element_matched or self.positional):
            return select

        def project(document: Document) -> Document:
            shown = select(document)
            for parts, cut in self.sliced:
                shown = _replace_arrays(shown, parts, cut)
            for parts, test in self.element_matched:
                array = read_exact(document, parts)
                matched = next(([item] for item in array if test(item)), None) if isinstance(array, list) else None
                shown = _replace_at(shown, parts, MISSING if matched is None else matched)
            for parts, position in self.positional:
                index = position(document)
                if index is None:
                    raise QueryError(f"the filter matched no element of the array {'.'.join(parts)!r} to project")
                shown = _replace_at(shown, parts, [read_exact(document, parts)[index]])
            return shown

        return project


def _read(spec: Mapping[str, Any], context: Context, *, filter_spec: Mapping[str, Any], is_find: bool) -> _Plan:
    check_nesting(spec, "projection")
    plan = _Plan(context)
    for path, value in _flatten(spec):
        if is_find and path.endswith(".$"):
            _read_positional(plan, path[:-2], value, filter_spec)
            continue
        parts = checked_parts(path, "projection")
        if any(part.startswith("$") for part in parts):
            raise QuerySyntaxError(f"the projection {path!r} has a field that starts with $")
        if isinstance(value, bool) or is_number(value):
            _read_flag(plan, parts, is_truthy(value))
        elif is_find and isinstance(value, Mapping) and _is_find_slice(value):
            plan.sliced.append((parts, _compile_slice(value["$slice"])))
        elif is_find and isinstance(value, Mapping) and "$elemMatch" in value:
            plan.element_matched.append((parts, _compile_element_match(value)))
        else:
            plan.computed.append((parts, _compute(value, context)))
    return plan


def _read_flag(plan: _Plan, parts: Parts, is_shown: bool) -> None:
    if parts == ("_id",):
        plan.shows_id, plan.is_id_named = is_shown, True
    elif is_shown:
        plan.included.append(parts)
    else:
        plan.excluded.append(parts)


def _read_positional(plan: _Plan, path: str, value: Any, filter_spec: Mapping[str, Any]) -> None:
    if not is_truthy(value) or plan.positional:
        raise QuerySyntaxError("the positional projection is written {'array.$': 1}, once")
    parts = checked_parts(path, "projection")
    plan.positional.append((parts, compile_position(filter_spec, path, plan.context)))


def _compute(value: Any, context: Context) -> Expression:
    evaluate = compile_expression(value, context)

    def checked(document: Any, variables: Mapping[str, Any]) -> Any:
        made = evaluate(document, variables)
        check_made_value(made, context.budget)
        return made

    return checked


# Inclusion and exclusion


def _tree_of_names(paths: Sequence[Parts]) -> Tree:
    root: Tree = {}
    for parts in paths:
        node = root
        for part in parts[:-1]:
            node = node.setdefault(part, {})
        node[parts[-1]] = True
    return root


def _tree_of_expressions(computed: Sequence[tuple[Parts, Expression]]) -> Tree:
    root: Tree = {}
    for parts, expression in computed:
        node = root
        for part in parts[:-1]:
            node = node.setdefault(part, {})
        node[parts[-1]] = expression
    return root


def _include(document: Document, tree: Tree) -> Document:
    shown: Document = {}
    if "_id" in tree and "_id" in document:
        shown["_id"] = None
    for name, value in document.items():
        branch = tree.get(name)
        if branch is True:
            shown[name] = value
        elif branch is not None:
            if isinstance(value, dict):
                shown[name] = _include(value, branch)
            elif isinstance(value, list):
                shown[name] = _include_elements(value, branch)
            elif name == "_id":
                del shown["_id"]
    return shown


def _include_elements(array: list[Any], tree: Tree) -> list[Any]:
    return [
        _include(element, tree) if isinstance(element, dict) else _include_elements(element, tree)
        for element in array
        if isinstance(element, (dict, list))
    ]


def _exclude(value: Any, tree: Tree) -> Any:
    if isinstance(value, dict):
        return {
            name: item if name not in tree else _exclude(item, tree[name])
            for name, item in value.items()
            if tree.get(name) is not True
        }
    if isinstance(value, list):
        return [_exclude(element, tree) for element in value]
    return value


def _set_computed(target: Any, tree: Tree, document: Document, context: Context) -> Any:
    if isinstance(target, list):
        return [_set_computed(element, tree, document, context) for element in target]
    made: Document = dict(target) if isinstance(target, dict) else {}
    for name, node in tree.items():
        if isinstance(node, dict):
            made[name] = _set_computed(made.get(name), node, document, context)
            continue
        value = node(document, context.variables)
        if value is MISSING:
            made.pop(name, None)
        else:
            made[name] = value
    return made


# Parts of arrays


def _is_find_slice(value: Mapping[str, Any]) -> bool:
    """A find's ``$slice`` holds numbers only; with an array expression in front it is the expression operator."""
    if set(value) != {"$slice"}:
        return False
    argument = value["$slice"]
    return not isinstance(argument, list) or (bool(argument) and is_number(argument[0]))


def _compile_slice(argument: Any) -> Callable[[list[Any]], list[Any]]:
    numbers = argument if isinstance(argument, list) else [argument]
    whole = [as_whole(number) if is_number(number) else None for number in numbers]
    known = [number for number in whole if number is not None]
    if not 1 <= len(known) <= 2 or len(known) != len(whole):
        raise QuerySyntaxError("$slice of a projection needs a number or [skip, number]")
    if len(known) == 1:
        count = known[0]
        return lambda array: array[count:] if count < 0 else array[:count]
    skip, count = known
    if count <= 0:
        raise QuerySyntaxError("$slice of a projection needs a positive number of elements after the skip")

    def cut(array: list[Any]) -> list[Any]:
        start = max(len(array) + skip, 0) if skip < 0 else skip
        return array[start : start + count]

    return cut


def _compile_element_match(value: Mapping[str, Any]) -> Predicate:
    if len(value) != 1 or not isinstance(value["$elemMatch"], Mapping):
        raise QuerySyntaxError("$elemMatch of a projection needs an object")
    return compile_element(value["$elemMatch"], Context())


def _replace_arrays(value: Any, parts: Parts, cut: Callable[[list[Any]], list[Any]]) -> Any:
    if not parts:
        return cut(value) if isinstance(value, list) else value
    if isinstance(value, dict) and parts[0] in value:
        return {**value, parts[0]: _replace_arrays(value[parts[0]], parts[1:], cut)}
    if isinstance(value, list):
        return [_replace_arrays(element, parts, cut) for element in value]
    return value


def _replace_at(value: Any, parts: Parts, replacement: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if len(parts) > 1:
        return {**value, parts[0]: _replace_at(value[parts[0]], parts[1:], replacement)} if parts[0] in value else value
    if replacement is MISSING:
        return {name: item for name, item in value.items() if name != parts[0]}
    return {**value, parts[0]: replacement}
