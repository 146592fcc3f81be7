"""Real files of many kinds: some found in this Python installation, some made on the spot by their own libraries."""

import bz2
import csv
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import struct
import sysconfig
import tarfile
import wave
import zipfile
import zlib
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Opening hours</title></head>
<body><h1>Opening hours</h1><table><tr><td>Monday</td><td>9 to 17</td></tr></table><script>var a = 1;</script></body>
</html>
"""
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20"><circle cx="10" cy="10" r="8" fill="teal"/></svg>\n'
)
SHELL = '#!/bin/sh\nset -eu\nfor file in "$@"; do\n  if [ -f "$file" ]; then wc -c < "$file"; fi\ndone\n'
SQL = "CREATE TABLE site (name TEXT PRIMARY KEY, country TEXT NOT NULL);\nINSERT INTO site VALUES ('fra', 'DE');\n" * 6
MAKEFILE = ".PHONY: all\nall: main.o\n\tcc -o main main.o\nmain.o: main.c\n\tcc -c main.c\n"
PEM = "-----BEGIN CERTIFICATE-----\n" + "MIIBszCCAVmgAwIBAgIUQ\n" * 12 + "-----END CERTIFICATE-----\n"


def write_samples(directory: Path) -> list[Path]:
    """Write the sample files into `directory`; return them in name order."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in {**_texts(), **_archives(), **_binaries(), **_corners()}.items():
        (directory / name).write_bytes(content)
    _write_sqlite(directory / "rows.db")
    return sorted(directory.iterdir())


def _texts() -> dict[str, bytes]:
    library = Path(sysconfig.get_paths()["stdlib"])
    rows = io.StringIO()
    csv.writer(rows).writerows([["site", "country", "ms"], *(["fra", "DE", str(i)] for i in range(80))])
    texts = {
        "page.html": PAGE,
        "drawing.svg": SVG,
        "count.sh": SHELL,
        "schema.sql": SQL,
        "Makefile": MAKEFILE,
        "key.pem": PEM,
        "table.csv": rows.getvalue(),
        "facts.json": json.dumps({"sites": [{"name": "fra", "ms": i} for i in range(40)]}, indent=1),
        "fleet.yaml": "apiVersion: nearcast.dev/v1alpha1\nkind: Site\nmetadata: {name: fra}\nspec:\n  country: DE\n",
        "notes.md": "# Notes\n\nSome *words*, and a [link](https://example.org).\n\n* one\n* two\n\n```sh\nls -l\n```\n"
        * 3,
    }
    found = {name: (library / name).read_bytes() for name in ("dataclasses.py", "json/decoder.py", "this.py")}
    return {name: text.encode() for name, text in texts.items()} | {
        name.replace("/", "-"): content for name, content in found.items()
    }


def _archives() -> dict[str, bytes]:
    page = PAGE.encode() * 5
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("page.html", page)
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        member = tarfile.TarInfo("page.html")
        member.size = len(page)
        tar.addfile(member, io.BytesIO(page))
    return {
        "pages.zip": zipped.getvalue(),
        "pages.tar": tarred.getvalue(),
        "page.gz": gzip.compress(page, mtime=0),
        "page.bz2": bz2.compress(page),
        "page.xz": lzma.compress(page),
    }


def _binaries() -> dict[str, bytes]:
    ramp = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    sound, array = io.BytesIO(), io.BytesIO()
    with wave.open(sound, "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes((np.sin(np.arange(4000) / 9) * 9000).astype("<i2").tobytes())
    np.save(array, ramp)
    model = Path(str(distribution("magika").locate_file("magika/models/standard_v3_3/model.onnx")))
    return {
        "tone.wav": sound.getvalue(),
        "ramp.npy": array.getvalue(),
        "ramp.png": _png(ramp),
        "ramp.bmp": _bmp(64, 64),
        "report.pdf": _pdf(),
        "object.pickle": pickle.dumps({"words": ["place", "site", "fleet"] * 20, "n": list(range(50))}),
        "model.onnx": model.read_bytes()[:200_000],
        "random.bin": np.random.default_rng(7).bytes(6000),
    }


def _corners() -> dict[str, bytes]:
    """Where magika needs no model, or hardly trusts it."""
    return {
        "empty": b"",
        "tiny.txt": b"hello",
        "tiny.bin": b"\xff\xfe\xfd",
        "blank.txt": b" \n\t" * 3000,
        "blank-then-bin": b" " * 5000 + b"\xff\x00\xfe",
        "seven-words.txt": b"  \n the quick brown fox jumps over it  \n\n",
        "letters.txt": b"qzx " * 700,
        "exactly-block": (b"x = 1\n" * 700)[:4096],
        "one-past-block": (b"x = 1\n" * 700)[:4097],
    }


def _png(pixels: np.ndarray) -> bytes:
    height, width, _ = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\x00" + pixels[row].tobytes() for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _bmp(width: int, height: int) -> bytes:
    size = width * height * 3
    header = struct.pack(
        "<2sIHHIIiiHHIIiiII", b"BM", 54 + size, 0, 0, 54, 40, width, height, 1, 24, 0, size, 0, 0, 0, 0
    )
    return header + bytes(i % 251 for i in range(size))


def _pdf() -> bytes:
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>",
        b"<</Length 40>>\nstream\nBT /F 18 Tf 20 50 Td (Hello, sites) Tj ET\nendstream",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out, offsets = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"), []
    for number, part in enumerate(parts, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, part)
    start = len(out)
    out += b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return bytes(out + b"trailer\n<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % start)


def _write_sqlite(path: Path) -> None:
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE site (name TEXT, ms REAL)")
    database.executemany("INSERT INTO site VALUES (?, ?)", [(f"s{i}", i / 3) for i in range(60)])
    database.commit()
    database.close()
