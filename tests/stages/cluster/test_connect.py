import pytest

from ctc_ray.stages.cluster.connect import connect, n_cpus


@pytest.mark.ray
def test_connecting_twice_keeps_the_first_connection(local_ray: None) -> None:
    connect()
    assert n_cpus() >= 1
