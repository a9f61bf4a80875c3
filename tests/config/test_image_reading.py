from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.config.image_reading import ReadingConfig
from ctc_ray.config.prediction import PredictConfig


def test_stages_that_read_images_have_the_same_reading_options() -> None:
    for model in (CreateDatasetConfig, PredictConfig):
        assert issubclass(model, ReadingConfig)
        assert model.operational >= ReadingConfig.operational
        for name, field in ReadingConfig.model_fields.items():
            assert model.model_fields[name].default == field.default, name
            assert model.model_fields[name].description == field.description, name
