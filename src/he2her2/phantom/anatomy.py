"""Anatomy of one slide: the patient's histology, and fields that say which tissue lies at a position.

A field is positive inside its tissue and 0 at the border. All is drawn from the seed, the same for every stain and
scanner.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from he2her2.labels import Her2Status
from he2her2.phantom.outlines import Outlines, draw_outlines
from he2her2.phantom.random_fields import Floats, NoiseField, Positions, ScatteredPoints, key_of
from he2her2.phantom.spec import PhantomSpec


@dataclass(frozen=True)
class _Histology:
    """Microscopic appearance of one patient's tumour and the tissue around it.

    Attributes:
        nucleus_um: Mean diameter of the tumour nuclei.
        pleomorphism: Relative spread of that diameter.
        chromatin: 0 fine and pale, 1 coarse and dark.
        nucleoli: Share of tumour nuclei with a prominent nucleolus.
        mitoses: Share of tumour cells in division.
        spacing_um: Distance between tumour cells.
        nest_um: Width of nests and sheets.
        nest_fill: Share of the tumour that is nests; the rest is stroma.
        tubules: Tendency of the nests to form lumina, 0 to 1.
        discohesion: Tendency of gaps to open between tumour cells, 0 to 1.
        lymphocytes: 0 none, 1 dense infiltrates.
        fat: 0 none, 1 mostly fat outside the tumour.
        necrosis: 0 none, 1 large fields.
        myxoid: Share of the stroma that is pale and loose.
        collagen_angle: Main direction of the fibres, radians.
        her2_effect: Strength of HER2's effect on cell morphology; 0 if `signal` is 0 or HER2 is negative.
    """

    nucleus_um: float
    pleomorphism: float
    chromatin: float
    nucleoli: float
    mitoses: float
    spacing_um: float
    nest_um: float
    nest_fill: float
    tubules: float
    discohesion: float
    lymphocytes: float
    fat: float
    necrosis: float
    myxoid: float
    collagen_angle: float
    her2_effect: float


def _draw_histology(spec: PhantomSpec) -> _Histology:
    """Draw a patient's histology; only `her2_effect` depends on HER2."""
    rng = np.random.default_rng(key_of(spec.seed, "biology"))
    nucleus_um = rng.uniform(6.8, 8.5)
    return _Histology(
        nucleus_um=nucleus_um,
        pleomorphism=rng.uniform(0.11, 0.19),
        chromatin=rng.uniform(0.2, 0.7),
        nucleoli=rng.uniform(0.25, 0.6),
        mitoses=rng.uniform(0.001, 0.006),
        spacing_um=nucleus_um * rng.uniform(1.35, 1.65),
        nest_um=rng.uniform(50.0, 130.0),
        nest_fill=rng.uniform(0.5, 0.72),
        tubules=rng.uniform(0.0, 1.0) ** 2,
        discohesion=rng.uniform(0.1, 0.6),
        lymphocytes=rng.uniform(0.1, 0.8),
        fat=rng.uniform(0.05, 0.55),
        necrosis=rng.uniform(0.0, 0.6),
        myxoid=rng.uniform(0.1, 0.7),
        collagen_angle=rng.uniform(0.0, np.pi),
        her2_effect=spec.signal if spec.her2_status is Her2Status.POSITIVE else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Tissue of one slide; every method is a pure function of the position."""

    seed: int
    histology: _Histology
    outlines: Outlines

    def noise(self, purpose: str, wavelength_um: float) -> NoiseField:
        """Noise field of this slide for one purpose."""
        return NoiseField(key_of(self.seed, purpose), wavelength_um)

    def tissue(self, points: Positions) -> Floats:
        """Signed distance to the frayed edge of the tissue, µm."""
        return np.asarray(
            points.sample(self.outlines.tissue)
            + 5 * points.sample(self.noise("fray", 45))
            + 2 * points.sample(self.noise("fray fine", 12))
        )

    def tumour(self, points: Positions) -> Floats:
        """Signed distance to the edge of the invasive tumour, µm."""
        return points.sample(self.outlines.tumour)

    def fat(self, points: Positions) -> Floats:
        """Fat, positive inside; none in or near the tumour."""
        level = ndtri(1 - 0.75 * self.histology.fat)
        field = points.sample(self.noise("fat", 1500)) + 0.35 * points.sample(self.noise("fat edge", 260)) - level
        away = np.maximum(0, (self.tumour(points) + 40) / 120)
        return np.asarray(field - away - np.maximum(0, 1 - points.sample(self.outlines.tissue) / 60) * 0.5, np.float32)

    def necrosis(self, points: Positions) -> Floats:
        """Necrosis, positive inside; only deep in the tumour."""
        level = ndtri(1 - 0.2 * self.histology.necrosis - 1e-6)
        edge = points.sample(self.noise("necrosis edge", 110))
        field = points.sample(self.noise("necrosis", 600)) + 0.35 * edge - level
        return np.asarray(np.minimum(field, (self.tumour(points) - 70 + 30 * edge) / 60), np.float32)

    def lymphocytes(self, points: Positions) -> Floats:
        """Density of lymphocytes, 0 to 1: high near the tumour's edge."""
        near = np.exp(-(((self.tumour(points) + 40) / 220) ** 2))
        crowd = points.sample(self.noise("lymph", 420)) + 0.5 * points.sample(self.noise("lymph fine", 90))
        rise = crowd - ndtri(1 - 0.32 * self.histology.lymphocytes * (0.15 + 0.85 * near))
        return np.asarray(np.clip(1.6 * rise, 0, 1) * 0.95 + 0.012, np.float32)

    def myxoid(self, points: Positions) -> Floats:
        """Looseness of the stroma: 0 dense collagen, 1 pale and loose."""
        field = points.sample(self.noise("myxoid", 330)) + 0.5 * points.sample(self.noise("myxoid fine", 80))
        return np.asarray(np.clip(0.5 + 0.6 * (field - ndtri(1 - self.histology.myxoid)), 0, 1), np.float32)

    def nests(self, points: ScatteredPoints) -> Floats:
        """Nests of tumour cells, positive inside: between septa of stroma, stretched along the fibres."""
        u, v = self._along(points)
        size = self.histology.nest_um
        bent = ScatteredPoints(u / 1.7 + 0.2 * size * self.noise("bend", size).at(u, v), v.astype(np.float64))
        ridge = np.abs(bent.sample(self.noise("septa", 1.5 * size)))
        fine = np.abs(bent.sample(self.noise("septa fine", 0.75 * size)))
        broad = points.sample(self.noise("fill", 5 * size))
        fill = np.clip(self.histology.nest_fill + 0.18 * broad, 0.12, 0.95)
        shape = np.minimum(ridge, 0.7 + 0.75 * fine) - ndtri(1 - fill / 2)
        return np.asarray(np.minimum(shape, self.tumour(points) / 15), np.float32)

    def tubules(self, points: Positions) -> Floats:
        """Lumina of the tumour's tubules, positive inside."""
        level = ndtri(1 - 0.07 * self.histology.tubules - 1e-6)
        return np.asarray(points.sample(self.noise("tubules", 46)) - level, np.float32)

    def clones(self, points: Positions) -> Floats:
        """Field by which HER2 clusters in clones: mean 0, sd about 1."""
        return 0.8 * points.sample(self.noise("clones", 900)) + 0.6 * points.sample(self.noise("clones fine", 160))

    def fibres(self, points: Positions) -> tuple[Floats, Floats]:
        """Coordinates along and across the collagen fibres, in µm."""
        u, v = self._along(points)
        bend = points.sample(self.noise("fibre bend", 150))
        wave = points.sample(self.noise("fibre wave", 48))
        crimp = points.sample(self.noise("fibre crimp", 19))
        along = u + 300 * points.sample(self.noise("fibre along", 2600)) + 10 * bend
        across = v + self._bend(points) + 12 * bend + 4.0 * wave + 1.3 * crimp
        return np.asarray(along, np.float32), np.asarray(across, np.float32)

    def fibre_angle(self, points: ScatteredPoints) -> Floats:
        """Direction of the fibres, radians, without their waves."""
        step = 20.0
        near = (points, points.moved(step, 0), points.moved(0, step))
        across = [self._along(p)[1] + self._bend(p) for p in near]
        return np.asarray(np.arctan2(across[1] - across[0], across[0] - across[2]), np.float32)

    def _bend(self, points: Positions) -> Floats:
        far, near = points.sample(self.noise("fibre far", 2600)), points.sample(self.noise("fibre near", 520))
        return np.asarray(420 * far + 62 * near, np.float32)

    def _along(self, points: Positions) -> tuple[Floats, Floats]:
        c, s = np.cos(self.histology.collagen_angle), np.sin(self.histology.collagen_angle)
        return (points.x * c + points.y * s).astype(np.float32), (points.y * c - points.x * s).astype(np.float32)


def draw_anatomy(spec: PhantomSpec) -> Anatomy:
    """Draw the anatomy of a slide.

    Raises:
        PhantomError: The settings leave no room for tissue or tumour.
    """
    return Anatomy(spec.seed, _draw_histology(spec), draw_outlines(spec))
