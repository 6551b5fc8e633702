"""The compiled part of the build: pyproject.toml says everything else."""

from Cython.Build import cythonize
from setuptools import Extension, setup

EXTENSIONS = [
    Extension(
        "server.media.fastpath.*", ["server/media/fastpath/*.pyx"], extra_compile_args=["-O2", "-Wall", "-Wextra"]
    ),
]

setup(
    ext_modules=cythonize(
        EXTENSIONS,
        compiler_directives={"language_level": 3, "boundscheck": False, "wraparound": False, "embedsignature": True},
    )
)
