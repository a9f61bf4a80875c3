"""The contact sheet of a finished folder: the images' pixels, and what is written below them."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from ctc_ray.config.show import ShowConfig
from ctc_ray.errors import ConfigError, CtcError
from ctc_ray.files import storage
from ctc_ray.files.image_uris import image_uri
from ctc_ray.files.prefetch import fetch
from ctc_ray.reports.contact_sheet import Tile, contact_sheet, thumbnail
from ctc_ray.runs.failures import counts_to_text
from ctc_ray.runs.manifest import Manifest, is_complete, read_manifest
from ctc_ray.schemas import Failure
from ctc_ray.selection.samples import stratified_sample
from ctc_ray.stages.show.sample import candidates, head_of, read_jpegs

_THREADS = 16

Thumbnail = Image.Image | Failure


def draw(config: ShowConfig, uri: str, manifest: Manifest) -> dict[str, Any]:
    """Write the contact sheet; where it is, and what is on it, as JSON values."""
    if manifest.kind not in ("inventory", "dataset", "predictions"):
        raise ConfigError(
            f"--contact-sheet: {uri} holds {manifest.kind}, which has no images; inventory, "
            "dataset and predictions have"
        )
    found = candidates(uri, manifest, head_of(config, manifest))
    rows = stratified_sample(found, config.images, over=["class", "split"]).to_pylist()
    if not rows:
        raise ConfigError(f"--contact-sheet: {uri} holds no image")
    if manifest.kind == "dataset":
        thumbnails = _from_shards(uri, rows, config.tile)
    else:
        thumbnails = _from_files(_image_root(config, manifest), rows, config.tile)
    captions = [_caption(manifest, row) for row in rows]
    tiles = [Tile(image, text) for image, text in zip(thumbnails, captions, strict=True)]
    sheet_uri = storage.absolute(config.contact_sheet or "")
    png = contact_sheet(tiles, columns=config.columns, side=config.tile)
    storage.write_bytes(sheet_uri, png)
    failed = [image.value for image in thumbnails if isinstance(image, Failure)]
    counts = {code.value: n for code in Failure if (n := failed.count(code.value))}
    result = {"contact_sheet": sheet_uri, "images_on_it": len(rows)}
    return result | ({"images_without_pixels": counts_to_text(counts)} if failed else {})


def _from_shards(uri: str, rows: list[dict[str, Any]], side: int) -> list[Thumbnail]:
    def shown(row: dict[str, Any], raw: bytes | None) -> Thumbnail:
        return Failure(row["failure"]) if raw is None else thumbnail(raw, side)

    return read_jpegs(uri, rows, shown)


def _from_files(root_uri: str | None, rows: list[dict[str, Any]], side: int) -> list[Thumbnail]:
    def read(row: dict[str, Any]) -> Thumbnail:
        try:
            content = fetch(image_uri(root_uri, row["image_uri"]))
        except ConnectionError:
            return Failure.UNREADABLE
        return content if isinstance(content, Failure) else thumbnail(content, side)

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(read, rows))


def _image_root(config: ShowConfig, manifest: Manifest) -> str | None:
    """The folder that paths are relative to; predictions of a dataset have that of the dataset."""
    if config.image_root_uri is not None:
        return config.image_root_uri
    source = manifest.config.get("dataset_uri")
    if source and is_complete(source):
        try:
            manifest = read_manifest(source, "dataset")
        except CtcError:  # it was written anew since, by another ctc
            return None
    root: str | None = manifest.config.get("image_root_uri")
    return root


def _caption(manifest: Manifest, row: dict[str, Any]) -> list[str]:
    name = row["image_uri"].rpartition("/")[2]
    match manifest.kind:
        case "dataset":
            return [row["class"] or "(not labelled)", row["split"] or name]
        case "inventory":
            return [row["class"] or "(not labelled)", name]
        case _ if row["class"] is None:
            return [f"({row['failure']})", name]
        case _:
            return [f"{row['class']} {row['score']:.2f}", name]
