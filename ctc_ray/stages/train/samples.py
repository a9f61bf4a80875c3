"""Some training images as the model sees them in the first epoch, for TensorBoard.

B batch, C channels, H height, W width.
"""

import io
from collections.abc import Iterator, Mapping, Sequence

from PIL import Image

from ctc_ray.files import storage
from ctc_ray.labels import LabelSpace
from ctc_ray.reports.contact_sheet import Tile, contact_sheet
from ctc_ray.stages.train.tensorboard import IMAGES_EVENTS_FILE, events_of_image
from ctc_ray.training.batches import IGNORE_INDEX, Batch
from ctc_ray.training.device_batches import arrived
from ctc_ray.training.loop import EpochSettings

N_SAMPLES = 16
_COLUMNS = 4


def write(output_uri: str, batches: Sequence[Batch], settings: EpochSettings) -> None:
    """Write a sheet of all images of the batches, each above the classes of its heads."""
    tiles = [tile for batch in batches for tile in _tiles(batch, settings)]
    png = contact_sheet(tiles, columns=_COLUMNS, side=batches[0].images_BCHW.shape[-1])
    width, height = Image.open(io.BytesIO(png)).size
    events = events_of_image("training images", png, width=width, height=height)
    storage.write_bytes(storage.join(output_uri, IMAGES_EVENTS_FILE), events)


def _tiles(batch: Batch, settings: EpochSettings) -> Iterator[Tile]:
    images_BCHW, labels = arrived(batch, settings.device)
    if settings.augment is not None:
        images_BCHW = settings.augment(images_BCHW, batch.seeds)
    images_BHWC = images_BCHW.byte().permute(0, 2, 3, 1).cpu().numpy()
    for index, image_HWC in enumerate(images_BHWC):
        codes = {head: int(codes_B[index]) for head, codes_B in labels.items()}
        yield Tile(Image.fromarray(image_HWC), _caption(codes, settings.label_space))


def _caption(codes: Mapping[str, int], labels: LabelSpace) -> list[str]:
    return [
        "(not labelled)" if code == IGNORE_INDEX else labels.classes[head][code]
        for head, code in codes.items()
    ]
