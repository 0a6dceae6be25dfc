"""Is every kernel compiled before it is needed? An image that is built so compiles nothing when it starts."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPT = """
import importlib, pkgutil
import learner, stream
from learner.warm import warm_up_all
from numba.core.dispatcher import Dispatcher

warm_up_all()
kernels = {}
for package in (stream, learner):
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        for each in vars(importlib.import_module(found.name)).values():
            if isinstance(each, Dispatcher):
                kernels[f"{each.py_func.__module__}.{each.__name__}"] = bool(each.signatures)
print(len(kernels), *(name for name, compiled in kernels.items() if not compiled))
"""


def test_nothing_is_left_to_compile() -> None:
    n_kernels, *left = subprocess.check_output([sys.executable, "-c", SCRIPT], cwd=ROOT, text=True).split()
    assert int(n_kernels) > 50
    assert left == []
