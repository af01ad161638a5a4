"""What a user's mistake is called here.

Everything that a user can mend by changing a recipe, a file or a command line is a
:class:`UserError`: the command line prints its
text alone, without a traceback, and exits 1. Everything else is a bug or a fault and keeps its
traceback.
"""


class UserError(ValueError):
    """A mistake that the user can mend. The text says where it is, what was expected and what to
    do.
    """


class MissingResource(UserError):
    """The cluster cannot give what the recipe asks for. The text names the resource, how much is
    asked and how much there is.
    """
