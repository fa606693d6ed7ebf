"""The one error type that users see."""


class SlotIDError(ValueError):
    """Something a user can put right.

    The message says what was got, what was expected and how to fix it. A broken invariant of the code is
    an ``AssertionError`` instead.
    """
