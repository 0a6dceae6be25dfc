"""Under which licences is what ships? A page of what pip-licenses says on standard input; `make sbom` asks for it."""

import json
import sys
from collections import Counter

HEAD = """# Licences of what ships

Driftline is MIT. What `pip install driftline` brings with it, and the image has, under which licence, as the packages
say it; `make sbom` writes this page, and `dist/driftline.cdx.json` with versions and more (CycloneDX). The client
alone, `pip install driftline-client`, has a few of them. Not here: Python itself and Debian's packages in the base
image.

Copyleft: certifi's list of authorities (MPL-2.0, by file), and inside the wheels of NumPy and SciPy the GCC runtime
(libgfortran, GPL-3.0 with the GCC exception) and libquadmath (LGPL-2.1), loaded as the shared libraries that they are.
Nothing of these is changed or copied into Driftline. The texts of all licences are installed with the packages.
"""
OWN = {"driftline", "driftline-client", "pip", "setuptools", "wheel"}


def main() -> None:
    """Write the page."""
    packages = [each for each in json.load(sys.stdin) if each["Name"].lower() not in OWN]
    rows = sorted((each["Name"].lower(), each["License"].replace("|", "/"), each["URL"]) for each in packages)
    kinds = Counter(licence for _, licence, _ in rows)
    print(HEAD)
    print("; ".join(f"{licence}: {n}" for licence, n in kinds.most_common()) + ".\n")
    print("| package | licence | home |")
    print("|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
