"""Images that lie ready: what another program (CXR-IRGen, LLM-CXR, RoentGen's own script) drew for the same pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from paddle_cxr.data.image import EXTENSIONS, ImageError
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register
from paddle_cxr.synthesis.generators.base import Drawn, ImageRequest
from paddle_cxr.synthesis.generators.reading import read_grey


@register("generator")
class FolderGenerator:
    """Reads the image of each pair from a folder; prompt and seed make no difference, so drawing again is of no use.

    Args:
        folder: where the images are.
        pattern: a file's path below it, in which ``{id}`` stands for the pair's id: ``{id}.png``, ``{id}/0.jpg``.

    Attributes:
        title: the folder's name.

    Raises:
        UserError: no such folder, a pattern without ``{id}`` or with an unknown extension, no file that has it.
    """

    redraws = False  # another seed gives the same image

    def __init__(self, folder: str, pattern: str = "{id}.png") -> None:
        self._folder, self._pattern = Path(folder), pattern
        self.title = self._folder.resolve().name
        if not self._folder.is_dir():
            raise UserError(f"Generator.folder：没有文件夹 {folder}；应写放着现成图像的文件夹")
        suffix = PurePath(pattern).suffix
        if "{id}" not in pattern or suffix.lower() not in EXTENSIONS or not _is_below(pattern):
            raise UserError(f"Generator.pattern：应是 folder 下的路径，含有 {{id}}，以 {'、'.join(EXTENSIONS)} 之一结尾"
                            f"（例如 {{id}}.png），现在是 {pattern!r}")
        if next(self._folder.rglob(f"*{suffix}"), None) is None:
            raise UserError(f"Generator.pattern：{folder} 里没有 {suffix} 文件；请核对 folder 和 pattern")

    def draw(self, requests: Sequence[ImageRequest]) -> list[Drawn]:
        """The image of each request, of whatever size its file has; an error where it is missing or broken."""
        return [self._read(request.id) for request in requests]

    def _read(self, identity: str) -> Drawn:
        name = self._pattern.replace("{id}", identity)
        # An id comes from a file of reports: it may not name anything outside the folder.
        if not identity or not identity.isprintable() or not _is_below(name):
            return Drawn(error=f"id {identity[:80]!r} 不能作为文件名")
        try:
            return Drawn(read_grey(self._folder / name))
        except ImageError as error:
            return Drawn(error=f"{name}：{error.reason}")


def _is_below(name: str) -> bool:
    """Whether a relative path stays below the folder it starts from."""
    path = PurePath(name)
    return not path.is_absolute() and not path.drive and ".." not in path.parts
