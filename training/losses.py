"""The co-training losses on the maps of the captured block: naming, correspondence, retrieval.

Maps are float32 (n, cells, d): the cells of a square map, row by row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def class_loss(semantic: Tensor, vectors: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of F_S . C / sqrt(d) over all names, for every cell whose class is known.

    semantic: (n, cells, d). vectors: (1 + names, d), the background's first. classes: int64
    (n, cells), 0 for background, -1 for unknown. Objects have three times the weight of the
    background, whatever their areas.
    """
    logits = semantic @ vectors.T / math.sqrt(semantic.shape[-1])
    each = functional.cross_entropy(
        logits.flatten(0, 1), classes.flatten(), ignore_index=-1, reduction="none"
    )
    objects = (classes.flatten() > 0).float()
    background = (classes.flatten() == 0).float()
    on_objects = (each * objects).sum() / objects.sum().clamp(min=1)
    return 0.75 * on_objects + 0.25 * (each * background).sum() / background.sum().clamp(min=1)


def finding_loss(semantic: Tensor, vectors: Tensor, classes: Tensor) -> Tensor:
    """InfoNCE of finding the cells of a class by F_S . C / sqrt(d) among all cells of the batch.

    The arguments are those of `class_loss`. There, names compete for a cell; here, cells compete
    for a name. The negatives are first the cells of all other objects, then those of all
    backgrounds. Returns the mean over both and over classes, however many cells a class has.
    """
    known = classes.flatten()
    logits = (semantic @ vectors[1:].T).flatten(0, 1) / math.sqrt(semantic.shape[-1])
    present = (known[known > 0] - 1).unique()
    if len(present) == 0:
        return semantic.sum() * 0
    logits = logits[:, present].float()
    own = known[:, None] == present[None] + 1
    area = own.sum(dim=0)
    losses = []
    for rivals in ((known > 0)[:, None] & ~own, (known == 0)[:, None]):
        against = logits.masked_fill(~rivals, -1e4).logsumexp(dim=0)
        each = functional.softplus(against - logits).masked_fill(~own, 0.0)
        losses.append((each.sum(dim=0) / area).mean())
    return torch.stack(losses).mean()


def object_loss(semantic: Tensor, vectors: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of naming whole objects: F_S averaged over the cells of a class in one scene.

    The arguments are those of `class_loss`. Here a small object counts as much as a large one.
    """
    cover = functional.one_hot(classes.clamp(min=0), len(vectors)).float()[..., 1:]
    area = cover.sum(dim=1)
    scene, name = (area >= 2).nonzero(as_tuple=True)
    if len(scene) == 0:
        return semantic.sum() * 0
    pooled = (cover.transpose(1, 2) @ semantic)[scene, name] / area[scene, name, None]
    logits = pooled @ vectors[1:].T / math.sqrt(semantic.shape[-1])
    return functional.cross_entropy(logits, name)


def lesson_loss(
    features: Tensor, mask: Tensor, rows: Tensor, views: Tensor, temperature: float = 0.1
) -> Tensor:
    """Distillation of relations: which drawings does the teacher find similar to the query?

    features: (n, cells, d). mask: (n, cells), the fraction of each cell that the query covers.
    views: (drawings, d), the teacher's unit vectors. rows: int (n,), the query's row in `views`, -1
    for a query that the teacher has not seen. The loss is the cross-entropy between two softmaxes
    over all drawings: of the similarities to the query's view, and of those to the features
    averaged over the query's cells.
    """
    known = (rows >= 0) & (mask.sum(dim=1) > 0)
    if not known.any():
        return features.sum() * 0
    weights = mask[known] / mask[known].sum(dim=1, keepdim=True)
    pooled = functional.normalize((weights.unsqueeze(1) @ features[known]).squeeze(1), dim=-1)
    wanted = functional.softmax(views[rows[known]] @ views.T / temperature, dim=1)
    return functional.cross_entropy(pooled @ views.T / temperature, wanted)


def view_loss(features: Tensor, views: Tensor) -> Tensor:
    """Distillation cell by cell: one minus the cosine with the teacher's view of the same place.

    features: (n, cells, d). views: (n, h, w, d), h = w. The finer of the two is averaged down.
    """
    maps = [_square(features), views.permute(0, 3, 1, 2)]
    side = min(each.shape[2] for each in maps)
    mine, wanted = (functional.adaptive_avg_pool2d(each, side) for each in maps)
    return 1 - functional.cosine_similarity(mine, wanted, dim=1).mean()


def _square(features: Tensor) -> Tensor:
    """(n, cells, d) as (n, d, side, side)."""
    return features.transpose(1, 2).unflatten(2, (math.isqrt(features.shape[1]), -1))


def centred(appearance: Tensor) -> Tensor:
    """Unit vectors of a map after subtraction of the batch's mean, (n, cells, d)."""
    return functional.normalize(appearance - appearance.mean(dim=(0, 1), keepdim=True), dim=-1)


def dense_loss(first: Tensor, second: Tensor, points: Tensor, temperature: float = 0.07) -> Tensor:
    """InfoNCE between the features of two scenes at the same points of an object.

    first, second: (n, cells, d). points: (n, 2, p, 2), (x, y) as fractions, NaN where absent. The
    negatives are the points of other pairs, and those of the same pair that are more than a cell
    and a half away.
    """
    pairs, cells, width = first.shape
    side = math.isqrt(cells)
    present = torch.isfinite(points).all(dim=(1, 3)).flatten()
    where = torch.nan_to_num(points, nan=0.5)
    both = centred(torch.cat([first, second])).reshape(2, pairs, side, side, width)
    sampled = [
        functional.grid_sample(
            both[view].permute(0, 3, 1, 2), where[:, view, None] * 2 - 1, align_corners=False
        )[:, :, 0].transpose(1, 2)
        for view in range(2)
    ]
    one, two = (functional.normalize(s, dim=-1).flatten(0, 1)[present] for s in sampled)
    if len(one) < 2:
        return first.sum() * 0
    owner = torch.arange(pairs, device=first.device).repeat_interleave(points.shape[2])[present]
    logits = one @ two.T / temperature
    losses = []
    for view, scores in ((1, logits), (0, logits.T)):
        place = where[:, view].flatten(0, 1)[present] * side
        near = (torch.cdist(place, place) < 1.5) & (owner[:, None] == owner[None])
        near.fill_diagonal_(False)
        targets = torch.arange(len(scores), device=scores.device)
        losses.append(functional.cross_entropy(scores.masked_fill(near, -1e4), targets))
    return torch.stack(losses).mean()


def retrieval_loss(
    appearance: Tensor, mask: Tensor, holds: Tensor, tokens: int = 16, temperature: float = 0.04
) -> Tensor:
    """InfoNCE whose score is late interaction: the mean over query tokens of the best match.

    appearance: (2n, cells, d), the first scenes, then the second. mask: (2n, cells), the fraction
    of each cell that the query covers. holds: int (2n, k), digests of the instances in a scene, its
    query first, -1 for none. Every scene is a query and a target. A query's own scene and other
    scenes that hold the query are left out.
    """
    count = len(appearance)
    half = count // 2
    units = centred(appearance)
    # At most `tokens` cells of each query, drawn at random from those that it covers well.
    keys = (mask.clamp(max=0.6) + 0.3 * torch.rand_like(mask)).masked_fill(mask < 0.2, -1)
    best, index = keys.topk(tokens, dim=1)
    index = torch.where(best > 0, index, index[:, :1])
    weight = (best > 0).float()
    weight[:, 0] = 1
    query = units.gather(1, index[..., None].expand(-1, -1, units.shape[-1]))
    similar = torch.einsum("qtd,gcd->qgtc", query, units).amax(dim=-1)
    scores = (similar * weight[:, None]).sum(dim=-1) / weight.sum(dim=-1)[:, None]
    same = (holds[:, :1, None] == holds.flatten()[None, None]).reshape(count, count, -1).any(-1)
    targets = torch.arange(count, device=appearance.device).roll(half)
    same[torch.arange(count), targets] = False
    return functional.cross_entropy(scores.masked_fill(same, -1e4) / temperature, targets)
