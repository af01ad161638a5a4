"""Errors that the user can fix.

A :class:`UserError` can be fixed by changing a recipe, a file or a command line: `qcrd` prints its
text without a traceback and exits with 1. Everything else is a bug or a fault, and keeps its
traceback.
"""


class UserError(ValueError):
    """A mistake that the user can fix: says where it is, what was expected, and what to do."""


class MissingResource(UserError):
    """The cluster cannot give what the recipe asks for.

    Names the resource, how much is asked, and how much there is.
    """
