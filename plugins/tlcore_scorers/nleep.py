"""NLEEP: LEEP with the clusters of a Gaussian mixture in place of source classes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from tlcore.hookspecs import hookimpl
from tlcore.protocols import Card, Evidence, Scorer
from tlcore.selection.samples import labelled_sample, principal_coordinates

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NLeep", "leep_of_clusters"]

IMAGES_PER_COMPONENT = 3
"""A component with an image or two of its own would know that image's label whatever the features say."""
REGULARISATION = 1e-3
"""Added to variances, in units of the mean variance of the kept components: none can vanish."""


def leep_of_clusters(posterior: NDArray[np.float64], labels: NDArray[np.int64], classes: int) -> float:
    """Mean over images of log sum_z P(y_i | z) p(z | x_i), in nats, <= 0.

    P(y | z) = sum_{i: y_i = y} p(z | x_i) / sum_i p(z | x_i) (Nguyen et al. 2020, LEEP, eq. 1-2). The sum of
    an image's own label is never 0, since the image itself adds to it.

    Args:
        posterior: p(z | x), [n, Z], rows sum to 1.
        labels: [n], 0 … classes-1.
    """
    joint = np.eye(classes)[labels].T @ posterior
    mass = joint.sum(axis=0)
    conditional = joint[:, mass > 0] / mass[mass > 0]
    likelihood = np.einsum("nz,nz->n", posterior[:, mass > 0], conditional[labels])
    return float(np.log(likelihood).mean())


class NLeep(Scorer):
    """Mean log-likelihood of the labels given the clusters of the features, in nats per image, at most 0."""

    card: ClassVar[Card] = Card(
        name="nleep",
        summary="LEEP over the clusters of a Gaussian mixture, on at most 500 images; slow with many classes",
        reference="Li et al. 2021, Ranking Neural Checkpoints (N-LEEP); LEEP of Nguyen et al. 2020, eq. 1-2",
        traits=frozenset({"features", "costly"}),
    )

    components_per_class: int = Field(
        5, ge=1, le=20, description="Gaussians per class; fewer where 3 images per Gaussian are lacking"
    )
    variance: float = Field(0.8, gt=0, le=1, description="share of the variance that the principal axes keep")
    covariance: Literal["diag", "full"] = Field(
        "full", description='covariance of a Gaussian along the principal axes; "diag" for many classes'
    )
    max_images: int = Field(500, ge=10, le=50_000, description="images of the stratified sample")

    def score(self, evidence: Evidence) -> float:
        """PCA, then EM for the mixture from k-means (seeded), then `leep_of_clusters`.

        Features are divided by one number (mean variance 1 along the kept axes), so that their scale does
        not matter. EM stops after 100 steps at the latest.

        Raises:
            UserError: see `tlcore.selection.samples.labelled_sample`.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        sample = labelled_sample(evidence, self.max_images, "nleep")
        rows = principal_coordinates(sample.features, share=self.variance)
        rows /= np.sqrt(np.mean(rows**2))
        wanted = self.components_per_class * sample.classes
        mixture = GaussianMixture(
            n_components=max(2, min(wanted, len(rows) // IMAGES_PER_COMPONENT)),
            covariance_type=self.covariance,
            reg_covar=REGULARISATION,
            random_state=evidence.seed,
        )
        with warnings.catch_warnings():
            # Images that coincide leave k-means or EM without work to do; the posterior is sound all the same.
            warnings.simplefilter("ignore", ConvergenceWarning)
            posterior = mixture.fit(rows).predict_proba(rows)
        return leep_of_clusters(posterior, sample.labels, sample.classes)


@hookimpl
def tlcore_scorers() -> list[type[Scorer]]:
    return [NLeep]
