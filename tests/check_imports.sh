#!/usr/bin/env bash
# Import the library in fresh environments of every Python and NumPy that it supports, each warning
# an error, and train a step: tests/check_imports.sh [PYTHON ...].  Not part of `make test`, for it
# installs an environment each.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
check='
import chainer_sno, chainer, numpy, sys
link = chainer_sno.links.MaskedMLP(4, (5, 3), 2)
data = numpy.random.rand(8, 4).astype("f"), numpy.arange(8, dtype="i") % 2
updater = chainer_sno.StructureUpdater(
    chainer_sno.ArrayIterator(data, 4), chainer.optimizers.NesterovAG().setup(link),
    chainer_sno.Bernoulli(link.costs), converter=chainer_sno.pass_arrays)
updater.update()
cupy = sys.modules.get("cupy")
print("ok: Python", sys.version.split()[0], "NumPy", numpy.__version__,
      "CuPy", getattr(cupy, "__version__", None))
'
pythons=("$@")
[ ${#pythons[@]} -gt 0 ] || pythons=(python3.10 python3.11 python3.12 python3.13)
for python in "${pythons[@]}"; do
    if ! "$python" -c "" 2>/dev/null; then
        echo "skipped: $python is not here"
        continue
    fi
    for packages in "numpy==1.26.*" "numpy>=2" "numpy>=2 cupy-cuda12x==13.*" "numpy>=2 cupy-cuda12x==14.*"; do
        rm -rf "$work/env"
        "$python" -m venv "$work/env"
        pip="$work/env/bin/python -m pip --quiet --disable-pip-version-check"
        $pip install "setuptools<81" wheel
        # NumPy 1.26 has no wheel for Python 3.13.
        if ! $pip install --only-binary numpy ${packages} 2>"$work/log"; then
            echo "skipped: $python has no wheel of $packages"
            continue
        fi
        $pip install --no-build-isolation chainer==7.8.1 ${packages}
        PYTHONPATH=$PWD "$work/env/bin/python" -W error -c "import chainer_sno"
        PYTHONPATH=$PWD "$work/env/bin/python" -c "$check"
    done
done
