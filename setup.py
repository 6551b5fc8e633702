"""The compiled parts of the build: pyproject.toml says everything else."""

from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

# The load generator's is built where it lies beside the server: the sanitizers' copy has none.
EXTENSIONS = [
    Extension(f"{package.replace('/', '.')}.*", [f"{package}/*.pyx"], extra_compile_args=["-O2", "-Wall", "-Wextra"])
    for package in ("server/media/fastpath", "loadtest")
    if glob(f"{package}/*.pyx")
]

setup(
    ext_modules=cythonize(
        EXTENSIONS,
        compiler_directives={"language_level": 3, "boundscheck": False, "wraparound": False, "embedsignature": True},
    )
)
