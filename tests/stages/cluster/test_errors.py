import pytest
import ray
from ray.exceptions import (
    LocalRayletDiedError,
    RaySystemError,
    RayTaskError,
    UserCodeException,
)

from ctc_ray.errors import CtcError, LabelError
from ctc_ray.stages.cluster.errors import as_error, ray_work


def of_task(cause: Exception) -> RayTaskError:
    """As `ray.get` raises what a task has raised."""
    return RayTaskError("task", "Traceback: …", cause, ip="127.0.0.1").as_instanceof_cause()


def of_dataset(cause: Exception) -> RayTaskError:
    """As Ray Data raises what a function of ours has raised."""
    error = UserCodeException("the function failed")
    error.__cause__ = cause
    return of_task(error)


@pytest.mark.parametrize("error", [LocalRayletDiedError(), RaySystemError("lost\n\n  its node")])
def test_a_failure_of_ray_is_one_line_with_the_way_out_and_the_logs(error: Exception) -> None:
    pattern = rf"^Ray failed: {type(error).__name__}: .*; .* the same command resumes \(logs: .*\)$"
    for raised in (error, of_task(error)):
        with pytest.raises(CtcError, match=pattern) as caught, ray_work():
            raise raised
        assert "\n" not in str(caught.value)


def test_an_error_for_the_user_comes_back_from_a_task_as_it_was_raised() -> None:
    error = LabelError("no such class")
    for raised in (of_task(error), of_dataset(error)):
        assert as_error(raised) is error


def test_an_error_of_our_code_stays_one() -> None:
    error = of_task(ZeroDivisionError("division by zero"))
    assert as_error(error) is error
    with pytest.raises(ZeroDivisionError), ray_work():
        raise error
    assert not isinstance(as_error(of_dataset(ZeroDivisionError())), CtcError)
    assert as_error(error.cause) is error.cause


def test_a_page_of_a_raylets_log_is_cut() -> None:
    assert len(str(as_error(RaySystemError("x" * 10_000)))) < 1000


@pytest.mark.ray
def test_an_actor_that_dies_is_one_line(local_ray: None) -> None:
    class Actor:
        def die(self) -> None:
            ray.actor.exit_actor()

    actor = ray.remote(num_cpus=0)(Actor).remote()
    with pytest.raises(CtcError, match=r"^Ray failed: ActorDiedError: "), ray_work():
        ray.get([actor.die.remote(), actor.die.remote()])
