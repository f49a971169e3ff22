"""Fetches the openly licensed pictures and names that the model learns from.

They come as four npm packages of fixed versions. Each archive is compared with the SHA-512 below
before it is unpacked, so that a training run always sees the same pictures. Nothing of this is
stored in the repository.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """An npm package of one version, with the SHA-512 of its archive in base64."""

    name: str
    version: str
    sha512: str

    @property
    def archive(self) -> str:
        """The file name that `npm pack` gives the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


FLUENT = Package(  # Fluent Emoji, 3D renders; MIT, Copyright Microsoft Corporation
    "@lobehub/fluent-emoji-3d",
    "1.1.0",
    "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
)
NOTO = Package(  # Noto Emoji, flat drawings as SVG; Apache-2.0, Copyright Google
    "@iconify-json/noto",
    "1.2.9",
    "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
)
KEYWORDS = Package(  # keywords of every emoji; MIT
    "emojilib",
    "4.0.3",
    "KbWiYre9aRSaPbHrHZIz9zmoM+21LAsK1VFJtnTh1VCtWE/rNMDviGhQTmselFl95dhqtGlY22iH0leG5BuW0g==",
)
PACKAGES = (FLUENT, NOTO, KEYWORDS)


def fetch(package: Package, work: Path) -> Path:
    """Return the folder of the unpacked package; the archive is fetched if it is not there yet."""
    folder = work / "npm" / package.archive.removesuffix(".tgz")
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        archive = folder.parent / package.archive
        if not archive.exists():
            subprocess.run(
                ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
                cwd=folder.parent,
                check=True,
            )
        _check(package, archive)
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
    return folder / "package"


def _check(package: Package, archive: Path) -> None:
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != package.sha512:
        raise ValueError(f"{archive.name} is not the archive of {package.name}@{package.version}")
