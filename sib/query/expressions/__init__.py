"""Aggregation expressions: compiled once to a function of the document and the variables.

Source: MongoDB manual, "Aggregation Operators" (expression operators).
"""

# The modules of operators register themselves when they are imported.
from sib.query.expressions import arrays, conversion, dates, logic, mathematics, objects, strings
from sib.query.expressions.compiler import Expression, Scope, compile_expression, evaluate_constant

__all__ = [
    "Expression",
    "Scope",
    "arrays",
    "compile_expression",
    "conversion",
    "dates",
    "evaluate_constant",
    "logic",
    "mathematics",
    "objects",
    "strings",
]
