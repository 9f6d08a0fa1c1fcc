"""mini-ChemVQA: skeletal formulas of real molecules; the answer is a number, ``Yes`` / ``No`` or a formula."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image
from rdkit import Chem, RDLogger
from rdkit.Chem.Draw import rdMolDraw2D
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from same.data.mini._questions import Asked, asked_sample
from same.data.mini._world import SIDE, Part, Sample, Split, choice, installed

ELEMENTS = {"C": "carbon", "N": "nitrogen", "O": "oxygen", "S": "sulfur", "Cl": "chlorine"}
FEWEST_ATOMS, MOST_ATOMS = 4, 9  # without hydrogen
MOST_OXYGENS = 4
ISOMERS = 4  # a formula is asked for where so many molecules have it
SHARE_WITH_RINGS = 0.6
DETAIL = 2  # drawn larger, then reduced


@dataclass(frozen=True)
class Molecule:
    """A molecule as it is drawn, and what is asked about it."""

    drawn: Chem.Mol
    formula: str
    elements: tuple[str, ...]  # of each atom
    rings: tuple[tuple[int, ...], ...]  # atoms of each ring
    aromatic: tuple[bool, ...]  # of each atom


@cache
def _known() -> tuple[Molecule, ...]:
    """Small neutral molecules of five elements, in order of their formula."""
    RDLogger.DisableLog("rdApp.*")
    lines = installed("rdkit", "Data", "NCI", "first_5K.smi").read_text(encoding="utf-8").splitlines()
    parsed = (Chem.MolFromSmiles(line.split()[0]) for line in lines)
    unique = {
        Chem.MolToSmiles(molecule): molecule for molecule in parsed if molecule is not None and _is_plain(molecule)
    }
    molecules = [_described(unique[smiles]) for smiles in sorted(unique)]
    return tuple(sorted(molecules, key=lambda molecule: molecule.formula))


def _is_plain(molecule: Chem.Mol) -> bool:
    atoms = list(molecule.GetAtoms())
    oxygens = sum(atom.GetSymbol() == "O" for atom in atoms)
    charged = any(atom.GetFormalCharge() or atom.GetIsotope() or atom.GetNumRadicalElectrons() for atom in atoms)
    whole = len(Chem.GetMolFrags(molecule)) == 1
    known = all(atom.GetSymbol() in ELEMENTS for atom in atoms)
    return FEWEST_ATOMS <= len(atoms) <= MOST_ATOMS and oxygens <= MOST_OXYGENS and known and whole and not charged


def _described(molecule: Chem.Mol) -> Molecule:
    atoms = list(molecule.GetAtoms())
    return Molecule(
        rdMolDraw2D.PrepareMolForDrawing(molecule),
        CalcMolFormula(molecule),
        tuple(atom.GetSymbol() for atom in atoms),
        tuple(tuple(ring) for ring in molecule.GetRingInfo().AtomRings()),
        tuple(atom.GetIsAromatic() for atom in atoms),
    )


@cache
def molecules(split: Split) -> tuple[Molecule, ...]:
    """The split's molecules: every fifth is for testing."""
    return tuple(molecule for at, molecule in enumerate(_known()) if (at % 5 == 4) == (split == "test"))


@cache
def _shared_formulas() -> frozenset[str]:
    """Formulas of several molecules: one of them is then for training."""
    counts = Counter(molecule.formula for molecule in _known())
    return frozenset(formula for formula, count in counts.items() if count >= ISOMERS)


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; no molecule is in both splits."""
    with_rings = bool(rng.random() < SHARE_WITH_RINGS)
    molecule = choice(rng, [known for known in molecules(split) if bool(known.rings) == with_rings])
    image, centres = _picture(molecule, 30 * int(rng.integers(12)))
    parts = [_ring(molecule, ring, centres) for ring in molecule.rings]
    for symbol, (x, y) in zip(molecule.elements, centres, strict=True):
        if symbol != "C":
            parts.append(Part(f"atom {ELEMENTS[symbol]}", (x - 6, y - 6, x + 6, y + 6)))
    counts = Counter(molecule.elements)
    shown = [f"{counts[symbol]} {name}" for symbol, name in ELEMENTS.items() if counts[symbol]]
    caption = f"A molecule with {_rings_said(molecule)} and with atoms of " + ", ".join(shown) + "."
    return asked_sample(rng, image, caption, _questions(rng, molecule), parts, "paper")


def _picture(molecule: Molecule, degrees: int) -> tuple[Image.Image, list[tuple[float, float]]]:
    """The molecule turned about, and where its atoms are, in pixels."""
    pen = rdMolDraw2D.MolDraw2DCairo(DETAIL * SIDE, DETAIL * SIDE)
    options = pen.drawOptions()
    options.bondLineWidth, options.padding, options.rotate = 3, 0.08, degrees
    options.minFontSize, options.maxFontSize = 20, 26
    pen.DrawMolecule(molecule.drawn)
    pen.FinishDrawing()
    with Image.open(io.BytesIO(pen.GetDrawingText())) as drawing:
        image = drawing.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    places = (pen.GetDrawCoords(atom) for atom in range(len(molecule.elements)))
    return image, [(place.x / DETAIL, place.y / DETAIL) for place in places]


def _ring(molecule: Molecule, ring: tuple[int, ...], centres: list[tuple[float, float]]) -> Part:
    across, down = zip(*(centres[atom] for atom in ring), strict=True)
    kind = "aromatic ring" if molecule.aromatic[ring[0]] else "ring"
    return Part(kind, (min(across), min(down), max(across), max(down)))


def _rings_said(molecule: Molecule) -> str:
    count = len(molecule.rings)
    return ("no rings", "one ring", "two rings")[count] if count < 3 else f"{count} rings"


def _asked_element(rng: np.random.Generator, counts: Counter[str]) -> str:
    """An element that is there, or is not, about as often: rather a rare one that is there than a common one."""
    rare, common = ["S", "Cl"], ["N", "O"]
    wanted = bool(rng.random() < 0.5)
    for symbols in (rare, common) if wanted else (common, rare):
        if fitting := [symbol for symbol in symbols if bool(counts[symbol]) == wanted]:
            return choice(rng, fitting)
    return choice(rng, common)


def _questions(rng: np.random.Generator, molecule: Molecule) -> list[Asked]:
    counts = Counter(molecule.elements)
    symbol = _asked_element(rng, counts)
    held, name = bool(counts[symbol]), ELEMENTS[symbol]
    oxygens, rings = counts["O"], len(molecule.rings)
    contains = "Indeed, it holds" if held else "Not at all, it holds no"
    asked = [
        ("How many rings does the molecule have?", str(rings), f"One can see {_rings_said(molecule)} in it."),
        (f"Does the molecule contain {name}?", "Yes" if held else "No", f"{contains} {name}."),
        ("How many oxygen atoms are in the molecule?", str(oxygens), f"One can count {oxygens} of oxygen in it."),
    ]
    if rings:
        aromatic = any(molecule.aromatic)
        said = "Indeed, it has an aromatic ring." if aromatic else "Not at all, its ring is not aromatic."
        asked.append(("Is the molecule aromatic?", "Yes" if aromatic else "No", said))
    if molecule.formula in _shared_formulas():
        asked.append(
            ("What is the molecular formula?", molecule.formula, f"The formula is written {molecule.formula}.")
        )
    return asked
