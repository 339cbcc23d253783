"""The tests, in folders that mirror the rooms of the package; what concerns more than one room lies beside them."""

from pathlib import Path

#: The folder of the project.
ROOT = Path(__file__).resolve().parent.parent
