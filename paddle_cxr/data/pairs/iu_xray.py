"""IU X-ray, the Indiana University chest X-ray collection (Demner-Fushman et al. 2016, JAMIA 23(2))."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from paddle_cxr.data.pairs.absent import AbsentImages, OnError
from paddle_cxr.data.pairs.record import PairRecord, PairSource
from paddle_cxr.data.pairs.views import FrontalViews
from paddle_cxr.data.sources.layout import inside, open_root, read_table
from paddle_cxr.data.sources.layout import why_missing as why_root_missing
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

REPORTS, PROJECTIONS = "indiana_reports.csv", "indiana_projections.csv"
_XML, _PNG = "ecgen-radiology", "NLMCXR_png"
# Where people unpack the two archives of Open-i, whose images have no folder of their own.
_XML_FOLDERS = (_XML, f"reports/{_XML}", f"NLMCXR_reports/{_XML}")
_PNG_FOLDERS = (_PNG, f"images/{_PNG}", "images")
_MAX_XML = 2_000_000  # bytes; a report has ten thousand
_KEPT = ("indication", "comparison", "MeSH", "Problems")


class _Report(NamedTuple):
    findings: str
    impression: str
    extra: dict[str, str]


class _Film(NamedTuple):
    where: str
    path: str  # below the root
    uid: str  # of the report


@register("pairs")
class IuXrayPairs(PairSource):
    """IU X-ray in either of its layouts: one pair an image, all images of a report with that report.

    Kaggle's: ``indiana_reports.csv``, ``indiana_projections.csv`` (which says the view) and the images in
    ``images/images_normalized``, ``images`` or beside the tables.  Open-i's: ``ecgen-radiology/*.xml`` (or in
    ``reports``) and ``NLMCXR_png/*.png`` (or in ``images``, or beside the folder); it does not say the view, unless
    ``indiana_projections.csv`` lies there too.  Reports without FINDINGS and IMPRESSION are left out and counted;
    ``XXXX`` stays for the words that were taken out.

    The collection has one report a patient, so the report's number is the patient's; it has no published split and no
    labels.  What the indexers wrote (``MeSH``, ``Problems``) is kept in ``Record.extra``.

    Args:
        root: the folder, or an archive of it.
        frontal_only: use frontal views only; images of another or no known view are counted.
        on_error: about images that are not there (supplied by the program: the recipe's ``DataLoader.on_error``).

    Raises:
        UserError: neither layout, an image missing, a broken table or XML file, an XML file with a document type
            (entities could expand without end), nothing left.
    """

    def __init__(self, root: str, frontal_only: bool = False, *, on_error: OnError = "error") -> None:
        self.notices: list[str] = []
        folder = open_root(root, self.notices, REPORTS, _XML)
        if (folder / REPORTS).is_file():
            reports, films = _kaggle_reports(folder), list(_kaggle_films(folder))
        elif xml := next((one for one in _XML_FOLDERS if (folder / one).is_dir()), None):
            reports, films = _open_i(folder, xml)
        else:
            raise UserError(f"{folder} 里没有 {REPORTS}（Kaggle）也没有 {_XML} 文件夹（Open-i），不像 IU X-ray；"
                            "请检查 IuXrayPairs.root")
        views, absent, known = FrontalViews(frontal_only), AbsentImages(on_error), _views(folder)
        records, silent = [], 0
        for film in films:
            report, view = reports.get(film.uid), known.get(_core(film.path), "")
            if report is None or not (report.findings or report.impression):
                silent += 1
            elif views.keeps(view) and absent.has(folder / film.path, film.where):
                records.append(_record(film, report, view))
        if silent:
            self.notices.append(f"{folder}：略过 {silent} 张图，它们的报告没有 FINDINGS 和 IMPRESSION")
        views.note(folder, self.notices)
        absent.note(folder, self.notices)
        if not records:
            hint = f"；不知道体位，请把 Kaggle 的 {PROJECTIONS} 放到 {folder}" if frontal_only and not known else ""
            raise UserError(f"{folder} 里一个图文对也没有（{'；'.join(self.notices) or '没有图像'}）{hint}")
        super().__init__("iu-xray", folder, records)

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_root_missing(str(arguments.get("root", "")))


def _record(film: _Film, report: _Report, view: str) -> PairRecord:
    return PairRecord(film.path, 0, f"iu-{film.uid}", extra=report.extra, id=_core(film.path),
                      findings=report.findings, impression=report.impression, view=view)


def _core(path: str) -> str:
    """What Kaggle's and Open-i's names share: ``1_IM-0001-4001.dcm.png``, ``CXR1_1_IM-0001-4001.png``."""
    return re.sub(r"\ACXR[0-9]+_", "", path.rpartition("/")[2].removesuffix(".png").removesuffix(".dcm"))


def _columns(file: Path, names: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a table that has these columns."""
    for where, row in read_table(file):
        absent = [name for name in names if name not in row]
        if absent:
            raise UserError(f"{file}:1：表头没有列 {absent[0]!r}（有：{'、'.join(row)}），不像 IU X-ray 的文件")
        yield where, row


def _kaggle_reports(folder: Path) -> dict[str, _Report]:
    return {row["uid"]: _Report(_text(row["findings"]), _text(row["impression"]),
                                {"uid": row["uid"], **{name: row[name] for name in _KEPT if row.get(name)}})
            for _, row in _columns(folder / REPORTS, ("uid", "findings", "impression"))}


def _kaggle_films(folder: Path) -> Iterator[_Film]:
    if not (folder / PROJECTIONS).is_file():
        raise UserError(f"{folder} 里没有 {PROJECTIONS}，不知道哪张图是哪份报告的；请从 Kaggle 下载")
    images = next((one for one in ("images/images_normalized", "images") if (folder / one).is_dir()), "")
    for where, row in _columns(folder / PROJECTIONS, ("uid", "filename", "projection")):
        yield _Film(where, inside(f"{images}/{row['filename']}".lstrip("/"), where), row["uid"])


def _views(folder: Path) -> dict[str, str]:
    """Image → view, where the table lies there."""
    file = folder / PROJECTIONS
    if not file.is_file():
        return {}
    return {_core(row["filename"]): row["projection"]
            for _, row in _columns(file, ("filename", "projection"))}


def _open_i(folder: Path, xml: str) -> tuple[dict[str, _Report], list[_Film]]:
    reports, films = {}, []
    images = next((one for one in _PNG_FOLDERS if (folder / one).is_dir()), ".")
    files = sorted((folder / xml).glob("*.xml"), key=lambda file: (len(file.name), file.name))  # 2.xml before 10.xml
    for file in files:
        tree = _parsed(file)
        uid = file.stem
        reports[uid] = _abstract(tree, uid)
        films += [_Film(str(file), inside(f"{images}/{image}.png", str(file)), uid)
                  for image in (one.get("id", "") for one in tree.iter("parentImage")) if image]
    twice = [path for path, number in Counter(film.path for film in films).items() if number > 1]
    if twice:
        raise UserError(f"{folder / xml}：图像 {twice[0]} 出现在两份报告里；请删去一份")
    return reports, films


def _abstract(tree: ElementTree.Element, uid: str) -> _Report:
    texts = {one.get("Label", "").upper(): _text("".join(one.itertext())) for one in tree.iter("AbstractText")}
    mesh = ";".join(_text("".join(one.itertext())) for one in tree.iter("major"))
    extra = {"indication": texts.get("INDICATION", ""), "comparison": texts.get("COMPARISON", ""), "MeSH": mesh}
    return _Report(texts.get("FINDINGS", ""), texts.get("IMPRESSION", ""),
                   {"uid": uid, **{name: text for name, text in extra.items() if text}})


def _parsed(file: Path) -> ElementTree.Element:
    """The XML of an untrusted file."""
    try:
        with open(file, "rb") as stream:
            raw = stream.read(_MAX_XML + 1)
        if len(raw) > _MAX_XML:
            raise UserError(f"{file}：超过 {_MAX_XML // 10**6} MB，不像是 Open-i 的报告")
        # Without a document type there are no entities to expand; Open-i's files have none.
        check = expat.ParserCreate()
        check.StartDoctypeDeclHandler = _refuse
        check.Parse(raw, True)
        return ElementTree.fromstring(raw)
    except OSError as error:
        raise UserError(f"无法读取报告 {file}：{error.strerror or error}") from None
    except (_Doctype, expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{file}：不是有效的 Open-i 报告（{error}）；请重新下载") from None


class _Doctype(Exception):
    pass


def _refuse(*_: object) -> None:
    raise _Doctype("含有文档类型声明 DOCTYPE，为安全起见不读")


def _text(cell: str) -> str:
    """Blanks normalised; pandas writes ``nan`` for an empty cell."""
    text = " ".join(cell.split())
    return "" if text.lower() == "nan" else text
