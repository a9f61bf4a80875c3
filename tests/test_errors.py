import inspect

import pytest

from ctc_ray import errors

ERRORS = [e for _, e in inspect.getmembers(errors, inspect.isclass) if issubclass(e, Exception)]


@pytest.mark.parametrize("error", ERRORS)
def test_one_except_catches_every_error_for_the_user(error):
    assert issubclass(error, errors.CtcError)
    with pytest.raises(errors.CtcError, match=r"^rows.csv: no rows$"):
        raise error("rows.csv: no rows")


def test_an_error_for_the_user_hides_no_error_of_the_code():
    assert not issubclass(errors.CtcError, ValueError | LookupError | OSError | RuntimeError)


def test_the_tree_in_the_docstring_names_every_error():
    for error in ERRORS:
        assert error.__name__ in (errors.__doc__ or "")
