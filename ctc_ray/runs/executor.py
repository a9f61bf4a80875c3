"""Units of work and what runs them."""

from ctc_ray.errors import CtcError


def error_to_text(unit_name: str, error: Exception) -> str:
    """An error for the user as a value of a row: what Ray raises tells it as a traceback."""
    return f"{unit_name}: {' '.join(str(error).split())}"


def raise_unit_error(error: str) -> None:
    """Stop because of what `error_to_text` has told, if it has told anything.

    Raises:
        CtcError: with the way out.
    """
    if error:
        raise CtcError(f"{error} (what is done is kept; the same command goes on where it was)")
