"""The Python API: open an index, ask it, get matches.

from search import Query, open_index

with open_index("holiday.waldo") as index:
    answer = index.search(Query(Path("my-dog.jpg"), class_name="dog"))
    for match in answer.matches:
        print(match.rank, match.path, match.score, match.box)
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from features.errors import RegionError, WaldoError
from features.extractor import FeatureExtractor
from features.frame import Frame
from features.maps import FeatureMaps
from features.photo import load_model_input
from features.reference import box_cells, class_cells, load_mask, mask_cells, point_cells
from indexer.reader import IndexReader
from search.localise import object_cells
from search.query import Answer, Match, Query, SearchOptions
from search.scores import SCORES, CandidateMaps, Scored, ScoringReference

# Candidates whose maps are scored at once are chosen so that float32 copies of their maps and
# their token-by-cell cosines stay near this many numbers (256 MB).
_BATCH_NUMBERS = 64_000_000


@dataclass(frozen=True)
class Reference:
    """The reference photo's side of a query.

    maps: its features. cells: (grid, grid) bool, the object's cells (M_r of PDM Eq. 3).
    class_vector: C, (d,) float32, or None.
    """

    maps: FeatureMaps
    cells: NDArray[np.bool_]
    class_vector: NDArray[np.float32] | None

    def tokens(self) -> NDArray[np.float32]:
        """F_AM_r of PDM Eq. 4, (n, d) float32."""
        return self.maps.appearance[self.cells].astype(np.float32)

    def recall_vector(self) -> NDArray[np.float32]:
        """[a_r ; C] / 2, (2 d,) float32; [a_r ; 0] / 2 without a class name.

        Its inner product with a photo's pooled vector is the mean of S_DF over that photo's map.
        """
        mean = self.tokens().mean(axis=0)
        other = np.zeros_like(mean) if self.class_vector is None else self.class_vector
        return (np.concatenate([mean, other]) / 2).astype(np.float32)


class Index:
    """A searchable collection: a store opened for reading, and the model that filled it.

    Use `open_index`. Not for several threads at once.
    """

    def __init__(self, reader: IndexReader, extractor: FeatureExtractor) -> None:
        self.reader = reader
        self.extractor = extractor

    def __enter__(self) -> "Index":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.reader.close()

    def reference(self, query: Query) -> Reference:
        """Features of the query's photo and the cells of its object.

        Raises RegionError where the query selects nothing, PhotoError for a broken photo.
        """
        regions = [name for name in ("mask", "box", "point") if getattr(query, name) is not None]
        if len(regions) > 1:
            raise RegionError(f"give one of --mask, --box and --point, not {' and '.join(regions)}")
        if not regions and query.class_name is None:
            raise RegionError(
                "say which object in the photo is meant: by --class NAME, "
                "or by --mask, --box or --point, or both"
            )
        class_vector = None
        if query.class_name is not None:
            block = self.extractor.settings.block
            class_vector = self.extractor.model.class_vector(query.class_name, block).cpu().numpy()
        photo = load_model_input(query.photo, self.extractor.image_size, self.extractor.grid)
        frame = photo.frame
        if query.mask is not None:
            cells = mask_cells(frame, load_mask(query.mask, frame.width, frame.height))
        elif query.box is not None:
            cells = box_cells(frame, query.box)
        [maps] = self.extractor.extract([photo])
        if query.point is not None:
            cells = point_cells(maps, query.point)
        elif not regions:
            assert class_vector is not None
            cells = class_cells(maps, class_vector)
        return Reference(maps, cells, class_vector)

    def search(self, query: Query, options: SearchOptions | None = None) -> Answer:
        """Rank the collection for one object.

        Raises WaldoError (see `reference`), also for a score that does not exist, or that needs
        the class name which the query lacks.
        """
        options = options or SearchOptions()
        score = SCORES.get(options.score)
        if score is None:
            raise WaldoError(f"--score {options.score}: no such score; one of {', '.join(SCORES)}")
        if score.needs_class and query.class_name is None:
            raise WaldoError(f"--score {score.name} needs the object's --class NAME")
        if options.top < 1 or options.candidates < 1:
            raise WaldoError("--top and --candidates must be 1 or more")
        clock = _Clock()
        with clock("extract"):
            reference = self.reference(query)
        with clock("recall"):
            wanted = max(options.candidates, options.top) if options.rerank else options.top
            ids, recall_scores = self.reader.recall.search(reference.recall_vector(), wanted)
        # Without re-ranking, the maps still say where in a photo the evidence lies.
        function = score if options.rerank else SCORES["pdm"]
        scored = self._score(reference, ids, function.function, clock)
        recalled = dict(zip(ids.tolist(), recall_scores.tolist(), strict=True))
        values = (
            scored.scores
            if options.rerank
            else np.array([recalled[i] for i in scored.ids.tolist()], dtype=np.float32)
        )
        # Equal scores keep the order of their ids, whatever order recall gave.
        order = np.lexsort((scored.ids, -values))[: options.top]
        with clock("localise"):
            matches = self._matches(reference, scored, values, order, recalled)
        return Answer(
            query=query,
            options=options,
            reference_cells=reference.cells,
            frame=reference.maps.frame,
            matches=matches,
            n_photos=self.reader.n_photos,
            damaged=scored.damaged,
            timing=clock.stages(),
        )

    def _score(
        self,
        reference: Reference,
        ids: NDArray[np.int64],
        function: Callable[[ScoringReference, CandidateMaps], Scored],
        clock: "_Clock",
    ) -> "_ScoredCandidates":
        """Read and score candidates' maps in batches that fit in memory."""
        import torch

        device = self.extractor.model.device
        tokens = torch.from_numpy(reference.tokens()).to(device)
        prepared = ScoringReference(
            tokens=tokens,
            class_vector=None
            if reference.class_vector is None
            else torch.from_numpy(reference.class_vector).to(device),
            mean_appearance=torch.from_numpy(self.reader.mean_pooled[: self.extractor.dim]).to(
                device
            ),
        )
        cells = self.extractor.grid**2
        batch = max(1, _BATCH_NUMBERS // (cells * (4 * self.extractor.dim + len(tokens))))
        parts: list[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]] = []
        damaged: list[str] = []
        for start in range(0, len(ids), batch):
            with clock("fetch"):
                maps = self.reader.read_maps(ids[start : start + batch])
            damaged += maps.damaged
            if len(maps.ids) == 0:
                continue
            with clock("score"), torch.inference_mode():
                result = function(
                    prepared,
                    CandidateMaps(
                        torch.from_numpy(maps.appearance).to(device).float(),
                        torch.from_numpy(maps.semantic).to(device).float(),
                        torch.from_numpy(maps.valid).to(device),
                    ),
                )
                parts.append((maps.ids, result.scores.cpu().numpy(), result.heatmaps.cpu().numpy()))
        if not parts:
            empty = np.zeros((0, cells), dtype=np.float32)
            return _ScoredCandidates(np.zeros(0, np.int64), empty[:, 0], empty, damaged)
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return _ScoredCandidates(columns[0], columns[1], columns[2], damaged)

    def _matches(
        self,
        reference: Reference,
        scored: "_ScoredCandidates",
        values: NDArray[np.float32],
        order: NDArray[np.intp],
        recalled: dict[int, float],
    ) -> list[Match]:
        grid = self.extractor.grid
        records = self.reader.photos(scored.ids[order])
        matches = []
        for rank, (place, record) in enumerate(zip(order, records, strict=True), start=1):
            frame = Frame(record.width, record.height, self.extractor.image_size, grid)
            heatmap = scored.heatmaps[place].reshape(grid, grid)
            matches.append(
                Match(
                    rank=rank,
                    path=record.path,
                    id=record.id,
                    score=float(values[place]),
                    recall_score=recalled[record.id],
                    box=frame.box_of(object_cells(heatmap, frame)),
                    heatmap=heatmap,
                    frame=frame,
                    is_query=record.content_hash == reference.maps.content_hash,
                )
            )
        return matches


@dataclass(frozen=True)
class _ScoredCandidates:
    """ids: (n,) int64. scores: (n,) float32. heatmaps: (n, cells) float32. damaged: lines."""

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    heatmaps: NDArray[np.float32]
    damaged: list[str]


@dataclass
class _Clock:
    """Seconds by stage; a stage entered twice adds up."""

    started: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begin
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    def stages(self) -> dict[str, float]:
        return {**self.seconds, "total": time.perf_counter() - self.started}


def open_index(directory: Path | str, device: str = "auto") -> Index:
    """Open an index and load the model that filled it.

    device: "auto" (a GPU where there is one) or a torch device. Raises WaldoError where the
    directory holds no index, or its model is not to be had or has changed.
    """
    reader = IndexReader.open(Path(directory))
    try:
        extractor = FeatureExtractor.from_fingerprint(reader.fingerprint, device)
    except BaseException:
        reader.close()
        raise
    return Index(reader, extractor)
