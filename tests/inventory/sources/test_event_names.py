import pyarrow as pa

from ctc_ray.inventory.sources.camtrap_events import prefix_repeated_event_ids


def test_an_id_of_several_deployments_is_an_event_of_each():
    text = pa.large_string()
    media = pa.array(["1", "2", None, "1"], text), pa.array(["a", "a", "b", None], text)
    observations = pa.array(["1", "3"], text), pa.array(["b", "b"], text)
    (of_media, of_observations), repeated = prefix_repeated_event_ids([media, observations])
    assert of_media.to_pylist() == ["a 1", "2", None, "1"]
    assert of_observations.to_pylist() == ["b 1", "3"]
    assert repeated.to_pylist() == ["1"]
