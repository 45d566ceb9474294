"""What pyproject.toml cannot say: the wheel carries the live version of the flagship, which stands in models/ alone.

The sdist carries the same files in their place, so that a wheel can be built from it.
"""

import json
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FLAGSHIP = Path("models", "mnist-projgan")
PACKAGED = Path("ganserve", "models")


def shipped() -> list[Path]:
    """The files of the live version, and the model's own."""
    live = json.loads((FLAGSHIP / "live.json").read_text(encoding="utf-8"))["version"]
    version = sorted(path for path in (FLAGSHIP / str(live)).iterdir() if path.is_file())
    return [*(FLAGSHIP / name for name in (".highest", "config.pbtxt", "live.json")), *version]


class WithFlagship(build_py):
    """Python files, and the flagship beside them; an editable install finds it in models/."""

    def run(self) -> None:
        super().run()
        for source, target in self._pairs():
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *(str(target) for _, target in self._pairs())]

    def get_source_files(self) -> list[str]:
        """What the sdist takes up."""
        return [*super().get_source_files(), *(str(path) for path in shipped())]

    def _pairs(self) -> list[tuple[Path, Path]]:
        if self.editable_mode:
            return []
        root = Path(self.build_lib, PACKAGED)
        return [(path, root / path.relative_to(FLAGSHIP.parent)) for path in shipped()]


setup(cmdclass={"build_py": WithFlagship})
