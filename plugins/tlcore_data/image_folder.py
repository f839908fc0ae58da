"""A folder per class, with or without split folders above the classes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, DataSource
from tlcore.values import Dataset


class ImageFolder(DataSource):
    """FOLDER/CLASS/… or FOLDER/{train,val,test}/CLASS/…; see `tlcore.data.folder.read_folder`."""

    card: ClassVar[Card] = Card(
        name="image-folder",
        summary="a folder per class, with or without train/val/test above the classes",
        reference="the layout of torchvision.datasets.ImageFolder, with splits",
    )

    path: str = Field(min_length=1, description="the folder that holds the class folders or the splits")
    labelled: bool = Field(
        True,
        description="class folders are required; false: they give labels where they exist, and a flat folder will do",
    )
    folders: Literal["classes", "ignored"] = Field(
        "classes", description='what folder names mean; "ignored": nothing, every image is unlabelled'
    )

    def load(self) -> Dataset:
        from tlcore.data.folder import read_folder

        return read_folder(self.path, labelled=self.labelled, folders=self.folders)

    def depends_on(self) -> tuple[str, ...]:
        return (self.path,)


@hookimpl
def tlcore_data_sources() -> list[type[DataSource]]:
    return [ImageFolder]
