"""Which tissue lies where: fields over the slide, positive inside, whose zero is the border."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from he2her2.phantom.biology import Biology, draw_biology
from he2her2.phantom.chance import Floats, key_of
from he2her2.phantom.layout import Layout, draw_layout
from he2her2.phantom.noise import Noise
from he2her2.phantom.places import Place, PointPlace
from he2her2.phantom.spec import PhantomSpec


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One slide's tissue; every method is a pure function of the position."""

    seed: int
    biology: Biology
    layout: Layout

    def noise(self, purpose: str, wavelength_um: float) -> Noise:
        """The slide's own noise for one purpose."""
        return Noise(key_of(self.seed, purpose), wavelength_um)

    def tissue(self, place: Place) -> Floats:
        """µm to the edge of the tissue, with a frayed edge."""
        return np.asarray(
            place.read(self.layout.tissue)
            + 5 * place.read(self.noise("fray", 45))
            + 2 * place.read(self.noise("fray fine", 12))
        )

    def tumour(self, place: Place) -> Floats:
        """µm to the edge of the invasive tumour."""
        return place.read(self.layout.tumour)

    def fat(self, place: Place) -> Floats:
        """Fat where positive; none within the tumour's reach."""
        level = ndtri(1 - 0.75 * self.biology.fat)
        field = place.read(self.noise("fat", 1500)) + 0.35 * place.read(self.noise("fat edge", 260)) - level
        away = np.maximum(0, (self.tumour(place) + 40) / 120)
        return np.asarray(field - away - np.maximum(0, 1 - place.read(self.layout.tissue) / 60) * 0.5, np.float32)

    def necrosis(self, place: Place) -> Floats:
        """Necrosis where positive; only deep in the tumour."""
        level = ndtri(1 - 0.2 * self.biology.necrosis - 1e-6)
        edge = place.read(self.noise("necrosis edge", 110))
        field = place.read(self.noise("necrosis", 600)) + 0.35 * edge - level
        return np.asarray(np.minimum(field, (self.tumour(place) - 70 + 30 * edge) / 60), np.float32)

    def lymphocytes(self, place: Place) -> Floats:
        """Share of the room that lymphocytes take, 0 to 1: dense near the tumour's edge."""
        near = np.exp(-(((self.tumour(place) + 40) / 220) ** 2))
        crowd = place.read(self.noise("lymph", 420)) + 0.5 * place.read(self.noise("lymph fine", 90))
        rise = crowd - ndtri(1 - 0.32 * self.biology.lymphocytes * (0.15 + 0.85 * near))
        return np.asarray(np.clip(1.6 * rise, 0, 1) * 0.95 + 0.012, np.float32)

    def myxoid(self, place: Place) -> Floats:
        """0 dense collagen, 1 pale and loose stroma."""
        field = place.read(self.noise("myxoid", 330)) + 0.5 * place.read(self.noise("myxoid fine", 80))
        return np.asarray(np.clip(0.5 + 0.6 * (field - ndtri(1 - self.biology.myxoid)), 0, 1), np.float32)

    def nests(self, points: PointPlace) -> Floats:
        """Tumour cells stand where positive: nests between septa of stroma, stretched along the fibres."""
        u, v = self._along(points)
        size = self.biology.nest_um
        bent = PointPlace(u / 1.7 + 0.2 * size * self.noise("bend", size).at(u, v), v.astype(np.float64))
        ridge = np.abs(bent.read(self.noise("septa", 1.5 * size)))
        fine = np.abs(bent.read(self.noise("septa fine", 0.75 * size)))
        broad = points.read(self.noise("fill", 5 * size))
        fill = np.clip(self.biology.nest_fill + 0.18 * broad, 0.12, 0.95)
        shape = np.minimum(ridge, 0.7 + 0.75 * fine) - ndtri(1 - fill / 2)
        return np.asarray(np.minimum(shape, self.tumour(points) / 15), np.float32)

    def tubules(self, place: Place) -> Floats:
        """Lumina of the tumour's tubules where positive."""
        level = ndtri(1 - 0.07 * self.biology.tubules - 1e-6)
        return np.asarray(place.read(self.noise("tubules", 46)) - level, np.float32)

    def clones(self, place: Place) -> Floats:
        """Where HER2 gathers: mean 0, sd about 1."""
        return 0.8 * place.read(self.noise("clones", 900)) + 0.6 * place.read(self.noise("clones fine", 160))

    def fibres(self, place: Place) -> tuple[Floats, Floats]:
        """Coordinates along and across the collagen fibres, in µm."""
        u, v = self._along(place)
        bend = place.read(self.noise("fibre bend", 150))
        wave = place.read(self.noise("fibre wave", 48))
        crimp = place.read(self.noise("fibre crimp", 19))
        along = u + 300 * place.read(self.noise("fibre along", 2600)) + 10 * bend
        across = v + self._swerve(place) + 12 * bend + 4.0 * wave + 1.3 * crimp
        return np.asarray(along, np.float32), np.asarray(across, np.float32)

    def fibre_angle(self, points: PointPlace) -> Floats:
        """Direction of the fibres at points, in radians, without their waves."""
        step = 20.0
        places = (points, points.moved(step, 0), points.moved(0, step))
        across = [self._along(place)[1] + self._swerve(place) for place in places]
        return np.asarray(np.arctan2(across[1] - across[0], across[0] - across[2]), np.float32)

    def _swerve(self, place: Place) -> Floats:
        far, near = place.read(self.noise("fibre far", 2600)), place.read(self.noise("fibre near", 520))
        return np.asarray(420 * far + 62 * near, np.float32)

    def _along(self, place: Place) -> tuple[Floats, Floats]:
        c, s = np.cos(self.biology.collagen_angle), np.sin(self.biology.collagen_angle)
        return (place.x * c + place.y * s).astype(np.float32), (place.y * c - place.x * s).astype(np.float32)


def draw_anatomy(spec: PhantomSpec) -> Anatomy:
    """Draw the tissue of a slide.

    Raises:
        PhantomError: The dials leave no room for tissue or tumour.
    """
    return Anatomy(spec.seed, draw_biology(spec), draw_layout(spec))
