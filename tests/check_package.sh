#!/usr/bin/env bash
# Build a wheel and a source distribution from the files that git knows, check their contents, install
# each in a fresh environment outside the checkout, as the README says, train 20 iterations, and run the
# README's example: tests/check_package.sh [PYTHON].  `make test` leaves it out, because it installs
# environments.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/checkout" "$work/dist"
git ls-files -z | xargs -0 cp --parents -t "$work/checkout"
cd "$work"
unset PYTHONPATH

environment() {
    rm -rf "$work/env"
    "$python" -m venv "$work/env"
    PATH=$work/env/bin:$PATH
    pip install -qq --disable-pip-version-check "setuptools<81" wheel
}

environment
pip wheel -qq --no-build-isolation --no-deps -w dist ./checkout
(cd checkout && python setup.py --quiet sdist -d ../dist)

python - <<'END'
import pathlib, re, tarfile, zipfile

(wheel,) = pathlib.Path("dist").glob("*.whl")
(source,) = pathlib.Path("dist").glob("*.tar.gz")
package = pathlib.Path("checkout/chainer_sno")
version = re.search('__version__ = "(.+)"', (package / "__init__.py").read_text())[1]
assert wheel.name.startswith(f"chainer_sno-{version}-py3-none-any"), wheel
expected = {
    str(path.relative_to("checkout"))
    for path in package.rglob("*")
    if path.suffix in {".py", ".typed", ".cu", ".cuh"}
}
with zipfile.ZipFile(wheel) as archive:
    names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected, f"the wheel differs by {sorted(names ^ expected)}"
    assert any(name.endswith("/LICENSE") for name in archive.namelist()), "no licence in the wheel"
with tarfile.open(source) as archive:
    names = {name.partition("/")[2] for name in archive.getnames()}
rest = {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "requirements.txt"}
rest |= {"setup.py", "pyproject.toml"}
missing = (expected | rest) - names
assert not missing, f"the source distribution lacks {sorted(missing)}"
print(f"ok: {wheel.name} and {source.name} hold what they should")
END

cat >train.py <<'END'
import chainer_sno, chainer, numpy, sys
from importlib import metadata

assert "checkout" not in chainer_sno.__file__, chainer_sno.__file__
assert chainer_sno.__version__ == metadata.version("chainer_sno")
network = chainer_sno.links.MaskedMLP(16, (32, 32), 4)
bernoulli = chainer_sno.Bernoulli(network.costs, epsilon0=0.25, eta=0.05)
rng = numpy.random.default_rng(0)
x = rng.random((64, 16), dtype="f")
data = x, x[:, :4].argmax(axis=1).astype("i")
updater = chainer_sno.StructureUpdater(
    chainer_sno.ArrayIterator(data, 16), chainer.optimizers.NesterovAG(0.05).setup(network),
    bernoulli, converter=chainer_sno.pass_arrays)
for _ in range(20):
    updater.update()
assert updater.iteration == 20 and (bernoulli.theta != 0.5).any()
small = chainer_sno.compact(network, bernoulli.mode())
numpy.testing.assert_allclose(
    small(x).array, network(x, bernoulli.mode()[None]).array[0], atol=1e-5)
print("ok: trained with Python", sys.version.split()[0], "NumPy", numpy.__version__)
END

python - <<'END'
import pathlib, re

# The example, and that what it leaves is a small network that has learnt.
(example,) = re.findall(r"```python\n(.*?)```", pathlib.Path("checkout/README.md").read_text(), re.S)
example += "assert bernoulli.usage_rate() < 0.4, bernoulli.usage_rate()\n"
example += "y = small(x[3000:]).array.argmax(axis=1)\nassert (y == t[3000:]).mean() > 0.85\n"
pathlib.Path("example.py").write_text(example)
END

for what in dist/*.whl dist/*.tar.gz ./checkout; do
    environment
    pip install -qq --disable-pip-version-check --no-build-isolation "$what"
    # No other file of the checkout may be needed.
    mkdir -p elsewhere
    (cd elsewhere && python ../train.py && python ../example.py)
done
# The example needs the package and its extra, and nothing else of the checkout.
pip install -qq --disable-pip-version-check --no-build-isolation "./checkout[examples]"
(cd elsewhere && python ../checkout/examples/fashion_mnist_channels.py --quick)
# What the extras name is to be had, all of it together.
pip install -qq --disable-pip-version-check --dry-run --no-build-isolation \
    "./checkout[dask,docs,examples,fast,onnx,plot,reproduce,test]"
echo "ok: the extras fit together"
