"""The aggregates, as tests name them."""

from service.operations.recomputed import COLUMNS, LEVELS

__all__ = ["COLUMNS", "LEVELS", "RELATIONS"]

RELATIONS = [f"{family}_{level}" for family in COLUMNS for level in LEVELS]
