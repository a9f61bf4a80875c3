from typing import Any

from ctc_ray.models.card import model_card


def description(**provenance: Any) -> dict[str, Any]:
    return {
        "ctc_version": "0.1.0",
        "backbone": "small_cnn",
        "classes": {"species": ["cat", "d|og"]},
        "image_size": 64,
        "keep_aspect": False,
        "is_stack": False,
        "temperatures": {"species": 1.7},
        "provenance": {
            "config": {"seed": 7},
            "data_fingerprint": "abc",
            "metrics": {},
            "n_training_images": {},
        }
        | provenance,
    }


def test_card_names_heads_and_classes_with_their_counts() -> None:
    card = model_card(description(n_training_images={"species": {"cat": 12}}))
    assert "### species" in card
    assert "| cat | 12 |" in card
    assert "| d\\|og | 0 |" in card  # known to the label space, but nothing to learn from


def test_card_shows_metrics_and_how_to_use_the_model() -> None:
    card = model_card(description(metrics={"accuracy_species": 0.87654}))
    assert "| accuracy_species | 0.8765 |" in card
    assert "ctc predict --bundle-uri" in card
    assert "squeezed to 64 x 64 pixels" in card


def test_card_tells_the_calibration() -> None:
    metrics = {"ece_species": 0.02, "ece_uncalibrated_species": 0.11}
    assert "| species | 1.7 | 0.1100 | 0.0200 |" in model_card(description(metrics=metrics))
    assert "| species | 1.7 | not measured | not measured |" in model_card(description())


def test_card_says_what_is_not_known() -> None:
    card = model_card(description())
    assert "Not measured." in card
    assert "| cat | not counted |" in card


def test_card_states_limits_and_training() -> None:
    card = model_card(description())
    assert "At other places" in card
    assert '"seed": 7' in card
    assert "`abc`" in card
