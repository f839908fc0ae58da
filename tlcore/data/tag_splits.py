"""Splits of images with tags: every tag spread over the splits as the images are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

__all__ = ["iterative_stratification"]


def iterative_stratification(
    tags: Mapping[str, Sequence[str]], settled: Mapping[str, str], shares: Mapping[str, float]
) -> dict[str, str]:
    """The split of every image that is not `settled`, by iterative stratification (Sechidis et al. 2011, figure 1).

    Again and again the tag with the fewest images left is taken, and each of its images goes to the split that lacks
    most of this tag; of splits that lack equally much to the one that lacks most images, then to the first. A split
    lacks share * images - those it has. At the end images without tags go where images are lacking. No draw is made:
    the order of `tags` decides among like images.

    Args:
        tags: the tags of each image, settled ones included, in the drawn order.
        settled: the split of images whose split is given.
        shares: of the images by split, in the order in which equals are served; they sum to 1.
    """
    lacking = {split: share * len(tags) for split, share in shares.items()}
    images = Counter(tag for own in tags.values() for tag in own)
    lacking_tag = {
        tag: {split: share * count for split, share in shares.items()} for tag, count in images.items()
    }
    made: dict[str, str] = {}

    def put(image: str, split: str) -> None:
        if split in lacking:
            lacking[split] -= 1
            for tag in tags[image]:
                lacking_tag[tag][split] -= 1

    for image, split in settled.items():
        if image in tags:
            put(image, split)
    left = [image for image in tags if image not in settled]
    with_tag: dict[str, list[str]] = {}
    for image in left:
        for tag in tags[image]:
            with_tag.setdefault(tag, []).append(image)
    while with_tag:
        rarest = min(with_tag, key=lambda tag: (len(with_tag[tag]), tag))
        for image in with_tag[rarest]:
            wanted = lacking_tag[rarest]
            made[image] = max(lacking, key=lambda split: (round(wanted[split], 9), round(lacking[split], 9)))
            put(image, made[image])
        with_tag = {
            tag: rest
            for tag, several in with_tag.items()
            if (rest := [image for image in several if image not in made])
        }
    for image in left:
        if image not in made:
            made[image] = max(lacking, key=lambda split: round(lacking[split], 9))
            put(image, made[image])
    return made
