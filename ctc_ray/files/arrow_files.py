"""The files of `storage` as a file system of Arrow, for `pyarrow.dataset`; read only.

Paths are URIs as `storage` takes them. Credentials, retries and errors are those of `storage`.
"""

from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.fs as pafs

from ctc_ray.files import storage


def arrow_file_system() -> pafs.FileSystem:
    """A file system whose paths are URIs; it can be pickled."""
    return pafs.PyFileSystem(_StorageFiles())


class _StorageFiles(pafs.FileSystemHandler):  # type: ignore[misc]  # pyarrow is untyped
    def __eq__(self, other: object) -> bool:
        return isinstance(other, _StorageFiles)

    def __hash__(self) -> int:
        return hash(_StorageFiles)

    def get_type_name(self) -> str:
        return "ctc"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        return [pafs.FileInfo(path, _kind(path)) for path in paths]

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        uris = storage.list_files(selector.base_dir)
        return [pafs.FileInfo(uri, pafs.FileType.File) for uri in uris]

    def open_input_file(self, path: str) -> pa.NativeFile:
        return storage.open_file(path)

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return storage.open_stream(path)

    def _refuse(self, *_: Any) -> NoReturn:
        raise NotImplementedError("this file system is read only")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _refuse
    delete_file = move = copy_file = open_output_stream = open_append_stream = _refuse


def _kind(uri: str) -> pafs.FileType:
    if storage.is_file(uri):
        return pafs.FileType.File
    return pafs.FileType.Directory if storage.is_folder(uri) else pafs.FileType.NotFound
